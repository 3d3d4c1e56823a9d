package caddymodule_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/policies"
)

// reported is what the admin endpoint says of a bundle.
type reported struct {
	Name, Why, File, Audience string
	Ready                     bool
	MaxAge                    float64 `json:"max_age_seconds"`
	InUse                     *struct {
		Policy          string
		Version         int64
		PolicyVersion   int64 `json:"policy_version"`
		Signed, Expires time.Time
		Age             float64 `json:"age_seconds"`
		Keys            uint64
	} `json:"in_use"`
	Trust struct {
		Threshold  int
		Signers    []bundle.Signature `json:"policy_signers"`
		Publishers []bundle.Signature
	}
	State struct {
		File     string
		Degraded bool
	}
	Caches    map[string]struct{ Bytes, Limit int64 }
	LastError *struct {
		At   time.Time
		Text string
	} `json:"last_error"`
}

// watched is a Caddy with its admin endpoint, and with a second bundle, which has expired.
type watched struct {
	*server
	home  *home
	said  strings.Builder // all that the admin endpoint and the readiness handler answered
	admin http.Client
	old   string // the second bundle's options
	vinr  string // more options of the first
}

func newWatched(t *testing.T) *watched {
	w := &watched{home: newHome(t, "vinr")}
	dir, err := os.MkdirTemp("", "admin") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	w.admin = http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	w.old = expired(t, dir)
	w.home.extra = "\tpersist_config off\n"
	config := w.config
	w.home.rewrite = func(text string) string { return config(strings.Replace(text, "admin off", "admin unix/"+socket, 1)) }
	return w
}

// expired writes a bundle that has, and gives the options for it.
func expired(t *testing.T, dir string) string {
	p, err := policies.Compile("default", compile.Options{Hosts: map[string][]string{"": {"old.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	version := time.Now().Add(-bundle.DefaultLife - time.Hour).UnixMilli()
	publisher, err := bundletest.NewPublisher(p, "old", bundle.DefaultAudience, version)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := publisher.Pack(version, bundletest.Records(3))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "old.keystile")
	if err := os.WriteFile(file, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("\t\tbundle old {\n\t\t\tfile %s\n\t\t\tsigner %s\n\t\t\tstate off\n\t\t}\n", file, publisher.Policy.Key)
}

// config adds what the test is about to a configuration.
func (w *watched) config(text string) string {
	return strings.Replace(text, "\t\tbundle vinr {\n", w.old+"\t\tbundle vinr {\n"+w.vinr, 1)
}

// watchedSites have a redirect and a rewrite that readiness comes before.
func watchedSites(*server) string {
	return "http://api.vinr.com, https://api.vinr.com {\n\tredir /ready /elsewhere\n\trewrite /ready/* /elsewhere\n\tkeystile_ready /ready vinr\n\tkeystile_ready /ready/all\n\tkeystile vinr\n\trespond ok\n}\n"
}

// ask asks the admin endpoint.
func (w *watched) ask(method, path string) (*http.Response, []byte) {
	w.t.Helper()
	response, err := w.admin.Do(newRequest(w.t, method, "http://127.0.0.1"+path))
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	w.said.Write(raw)
	return response, raw
}

func (w *watched) report(name string) (r reported) {
	w.t.Helper()
	response, raw := w.ask("GET", "/keystile/"+name)
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "application/json" || response.Header.Get("Cache-Control") != "no-store" {
		w.t.Fatalf("%s: %d %v", name, response.StatusCode, response.Header)
	}
	strict := json.NewDecoder(strings.NewReader(string(raw)))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&r); err != nil {
		w.t.Fatalf("%v\n%s", err, raw)
	}
	return r
}

// isReady asks the readiness handler, by GET and HEAD, over plain HTTP and TLS.
func (w *watched) isReady(path string, status int, want string) {
	w.t.Helper()
	for _, method := range []string{"GET", "HEAD"} {
		for _, scheme := range []string{"http", "https"} {
			r := w.do(method, scheme+"://api.vinr.com"+path)
			got := body(r)
			w.said.WriteString(got)
			if method == "HEAD" {
				if got != "" {
					w.t.Errorf("HEAD has a body: %q", got)
				}
			} else if got != want {
				w.t.Errorf("%s %s: %q, not %q", scheme, path, got, want)
			}
			if r.StatusCode != status || r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Type") != "text/plain" {
				w.t.Errorf("%s %s %s: %d %v", method, scheme, path, r.StatusCode, r.Header)
			}
		}
	}
}

// until asks until the report is as it should be.
func (w *watched) until(what string, good func(r reported) bool) reported {
	w.t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		r := w.report("vinr")
		if good(r) {
			return r
		}
		if time.Since(begin) > patience {
			w.t.Fatalf("%s: %+v", what, r)
		}
	}
}

// The admin endpoint says what is in use, why not, and what went wrong last; the
// readiness handler says whether requests are decided. Neither has a secret (R74).
func TestAdmin(t *testing.T) {
	const (
		gone    = "vinr: no bundle is active\n"
		expired = "old: the bundle has expired: `bundle renew` signs it again\n"
		tooOld  = "the bundle is older than max_age: check that `bundle renew` runs and that its file gets here"
	)
	w := newWatched(t)
	h, b := w.home, w.home.bundle("vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live", Tenant: "acct_canary"})
	away := b.File() + ".away"
	if err := os.Rename(b.File(), away); err != nil {
		t.Fatal(err)
	}
	w.server = start(t, h, []string{"vinr"}, watchedSites)

	r := w.report("vinr")
	if r.Ready || r.InUse != nil || r.Why != "no bundle is active" || r.File != b.File() || r.Audience != "default" || r.LastError != nil {
		t.Errorf("without a bundle: %+v", r)
	}
	if len(r.Trust.Signers) != 2 || r.Trust.Signers[0].Signed || len(r.Trust.Publishers) != 0 {
		t.Errorf("without a bundle: %+v", r.Trust)
	}
	w.isReady("/ready", 503, gone)
	w.isReady("/ready/all", 503, expired+gone)
	old := w.report("old")
	if old.Ready || old.InUse == nil || old.InUse.Keys != 3 || old.InUse.Policy != "default" || old.Why != "the bundle has expired: `bundle renew` signs it again" || old.State.File != "off" {
		t.Errorf("expired: %+v", old)
	}
	if !old.InUse.Expires.Before(time.Now()) || old.InUse.Age < 25*3600 || old.InUse.Expires.Sub(old.InUse.Signed) != bundle.DefaultLife {
		t.Errorf("expired: %+v", old.InUse)
	}

	if err := os.Rename(away, b.File()); err != nil {
		t.Fatal(err)
	}
	r = w.until("a bundle", func(r reported) bool { return r.Ready })
	if r.Why != "" || r.InUse.Policy != "vinr" || r.InUse.Keys != 1 || r.InUse.Version == 0 || r.InUse.PolicyVersion == 0 || r.MaxAge != 0 ||
		r.InUse.Signed.UnixMilli() != r.InUse.Version || r.InUse.Expires.Before(time.Now()) || r.State.Degraded || r.State.File != filepath.Join(h.dir, "state", "vinr") {
		t.Errorf("a bundle is there: %+v %+v", r, r.InUse)
	}
	names := func(keys ...string) (all []string) {
		for _, k := range keys {
			all = append(all, strings.Join(strings.Split(k, "+")[:2], "+"))
		}
		return all
	}
	var signers []string
	for _, s := range r.Trust.Signers {
		signers = append(signers, s.Key)
	}
	if r.Trust.Threshold != 1 || !reflect.DeepEqual(signers, names(b.Signers...)) || !r.Trust.Signers[0].Signed || r.Trust.Signers[1].Signed {
		t.Errorf("signers %+v, and not %q of which the first has signed", r.Trust, names(b.Signers...))
	}
	if len(r.Trust.Publishers) != 1 || !r.Trust.Publishers[0].Signed {
		t.Errorf("publishers: %+v", r.Trust)
	}
	w.isReady("/ready", 200, "ready\n")
	w.isReady("/ready/all", 503, expired)
	w.within("in use", 200, "X-Api-Key: "+key)
	w.until("caches", func(r reported) bool {
		records := r.Caches["records"]
		return len(r.Caches) == 3 && records.Bytes > 300<<10 && records.Limit == 64<<20 && r.Caches["nodes"].Limit == 64<<20 && r.Caches["tokens"].Limit == 8<<20
	})

	// What was refused is told, and what is in use stays so.
	before := time.Now()
	if err := os.WriteFile(b.File()+".new", []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(b.File()+".new", b.File()); err != nil {
		t.Fatal(err)
	}
	refused := w.until("refused", func(r reported) bool { return r.LastError != nil })
	if !refused.Ready || refused.InUse.Version != r.InUse.Version || !strings.HasPrefix(refused.LastError.Text, "a bundle was refused: ") ||
		!strings.Contains(refused.LastError.Text, b.File()) || refused.LastError.At.Before(before.Add(-time.Second)) || refused.LastError.At.After(time.Now().Add(time.Second)) {
		t.Errorf("refused: %+v %+v", refused, refused.LastError)
	}
	w.isReady("/ready", 200, "ready\n")
	if err := os.WriteFile(b.File(), good, 0o600); err != nil {
		t.Fatal(err)
	}

	// Another guard takes over at a reload, and it is the one that is told of.
	w.vinr = "\t\t\tmax_age 1ms\n"
	if err := w.load(h.globals(w.ports(), "vinr") + watchedSites(w.server)); err != nil {
		t.Fatal(err)
	}
	if r = w.report("vinr"); r.Ready || r.Why != tooOld || r.MaxAge != 0.001 || r.InUse == nil {
		t.Errorf("reloaded: %+v", r)
	}
	w.isReady("/ready", 503, "vinr: "+tooOld+"\n")

	_, raw := w.ask("GET", "/keystile/")
	var all struct{ Bundles []reported }
	if err := json.Unmarshal(raw, &all); err != nil || len(all.Bundles) != 2 || all.Bundles[0].Name != "old" || all.Bundles[1].Name != "vinr" {
		t.Errorf("all: %v\n%s", err, raw)
	}
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"HEAD", "/keystile/", 200}, {"HEAD", "/keystile/vinr", 200}, {"HEAD", "/keystile/x", 404},
		{"GET", "/keystile/x", 404}, {"GET", "/keystile/vinr/", 404}, {"GET", "/keystile/vinr/x", 404},
		{"GET", "/keystile/" + key, 404},
		{"POST", "/keystile/", 405}, {"PUT", "/keystile/vinr", 405}, {"DELETE", "/keystile/vinr", 405}, {"OPTIONS", "/keystile/", 405},
	} {
		response, raw := w.ask(tt.method, tt.path)
		if response.StatusCode != tt.status || (tt.method == "HEAD") != (len(raw) == 0) {
			t.Errorf("%s %s: %d %q", tt.method, tt.path, response.StatusCode, raw)
		}
		var said struct{ Error string }
		if tt.status >= 400 && tt.method != "HEAD" && (json.Unmarshal(raw, &said) != nil || said.Error == "") {
			t.Errorf("%s %s: no JSON: %q", tt.method, tt.path, raw)
		}
		if tt.status == 405 && response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: allow %q", tt.method, response.Header.Get("Allow"))
		}
	}
	w.quiet(key, "acct_canary")
}

// quiet says that nothing that was told has a secret in it: given ones, or a private key
// of the home.
func (w *watched) quiet(secrets ...string) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.home.dir, "vinr", "*.key"))
	if err != nil || len(files) < 2 {
		w.t.Fatalf("private keys: %q, %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		text := strings.TrimSpace(string(raw))
		secrets = append(secrets, "PRIVATE+KEY", strings.SplitN(text, "+", 5)[4]) // base64, which may have a +
	}
	said := w.said.String()
	if len(said) < 1000 {
		w.t.Fatalf("almost nothing was told: %q", said)
	}
	for _, secret := range secrets {
		for form, text := range map[string]string{
			"": secret, "base64": base64.RawStdEncoding.EncodeToString([]byte(secret)), "hex": hex.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(said, text) {
				w.t.Errorf("a secret is told %s", form)
			}
		}
	}
}

// What cannot be asked for is refused at load.
func TestReadyAtLoad(t *testing.T) {
	h := newHome(t, "vinr")
	for name, tt := range map[string]struct{ caddyfile, want string }{
		"all":            {h.globals("", "vinr") + "http://a.example {\n\tkeystile_ready /ready\n}\n", ""},
		"one":            {h.globals("", "vinr") + "http://a.example {\n\tkeystile_ready /ready vinr\n}\n", ""},
		"no such bundle": {h.globals("", "vinr") + "http://a.example {\n\tkeystile_ready /ready vinfer\n}\n", "the global options have"},
		"no bundle":      {"http://a.example {\n\tkeystile_ready /ready\n}\n", "add `keystile"},
	} {
		err := validate(t, tt.caddyfile)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	block := "http://a.example {\n\tkeystile_ready {\n\t\tvinr\n\t}\n}\n"
	if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(block), nil); err == nil || !strings.Contains(err.Error(), "and no block") {
		t.Errorf("a block: %v", err)
	}
}
