package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies"
)

// api is a bundle with its directory form, which an origin serves.
type api struct {
	*control.Bundle
	t    testing.TB
	name string
	dir  string
}

// newAPI makes a bundle of the default policy for a host.
func newAPI(t testing.TB, name, host string) *api {
	t.Helper()
	home, err := control.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, name: name, dir: filepath.Join(t.TempDir(), "origin")}
	if a.Bundle, err = home.Init(context.Background(), control.NewBundle{
		Name: name, Audience: "default", Policy: document, File: name, Hosts: map[string][]string{"": {host}}, Directory: a.dir,
	}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *api) key() (id, key string) {
	a.t.Helper()
	k, secret, err := a.Keyring().Create(context.Background(), control.NewKey{Kind: "secret", Environment: "live"})
	if err != nil {
		a.t.Fatal(err)
	}
	return k.ID, secret.Reveal()
}

// inline is the bundle as it is now, in a configuration.
func (a *api) inline() envoy.Object {
	a.t.Helper()
	raw, err := os.ReadFile(a.File())
	if err != nil {
		a.t.Fatal(err)
	}
	return envoy.Object{"inline": base64.StdEncoding.EncodeToString(raw), "signers": a.Signers}
}

// over is the bundle by clusters, tried in turn.
func (a *api) over(clusters ...string) envoy.Object {
	var origins []envoy.Object
	for _, c := range clusters {
		origins = append(origins, envoy.Object{"cluster": c, "authority": c + ".test"})
	}
	return envoy.Object{"origins": origins, "signers": a.Signers, "poll_interval": "200ms"}
}

// origin serves a directory, as long as it is told to.
type origin struct {
	*httptest.Server
	mu      sync.Mutex
	serve   func(http.ResponseWriter, *http.Request) // in place of the directory
	nodes   atomic.Int64
	address string
}

func newOrigin(t testing.TB, dir string) *origin {
	t.Helper()
	o := new(origin)
	files := http.FileServer(http.Dir(dir))
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/node/") {
			o.nodes.Add(1)
		}
		o.mu.Lock()
		serve := o.serve
		o.mu.Unlock()
		if serve != nil {
			serve(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	o.address = o.Listener.Addr().String()
	return o
}

func (o *origin) set(serve func(http.ResponseWriter, *http.Request)) {
	o.mu.Lock()
	o.serve = serve
	o.mu.Unlock()
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// edge is an Envoy with the filter in front of an upstream.
type edge struct {
	t           testing.TB
	http, https string
	admin       string
	process     *envoy.Process
	upstream    *httptest.Server
	reached     atomic.Int64
	received    atomic.Pointer[http.Request]
	bytes       atomic.Int64
	client      *http.Client
}

func freeAddress(t testing.TB) string {
	t.Helper()
	free, err := address.Free()
	if err != nil {
		t.Fatal(err)
	}
	return free
}

// options change what [start] does by itself.
type options struct {
	workers  int
	clusters []envoy.Object
	filter   func(envoy.Object) // of the filter
	routes   []envoy.Object     // in place of one to the upstream
	hcm      func(envoy.Object) // of the connection manager
	filters  []envoy.Object     // behind the filter
	// listeners are more of them, with the certificates in dir.
	listeners func(dir string, routes, filters []envoy.Object) []envoy.Object
}

func (e *edge) config(plugin any, o options) envoy.Object {
	e.t.Helper()
	module, err := envoy.Module()
	if err != nil {
		e.t.Fatal(err)
	}
	dir := e.t.TempDir()
	if err := certificate.Write(dir); err != nil {
		e.t.Fatal(err)
	}
	text, ok := plugin.(string)
	if !ok {
		raw, err := json.Marshal(plugin)
		if err != nil {
			e.t.Fatal(err)
		}
		text = string(raw)
	}
	filter := envoy.Filter(module, text)
	if o.filter != nil {
		o.filter(filter)
	}
	filters := append(append([]envoy.Object{filter}, o.filters...), envoy.Router())
	routes := o.routes
	if routes == nil {
		routes = envoy.To("upstream")
	}
	listeners := []envoy.Object{
		envoy.Listener("https", e.https, dir, routes, filters, o.hcm), envoy.Listener("http", e.http, "", routes, filters, o.hcm),
	}
	if o.listeners != nil {
		listeners = append(listeners, o.listeners(dir, routes, filters)...)
	}
	return envoy.Object{
		"admin": envoy.Object{"address": envoy.Socket(e.admin)},
		"static_resources": envoy.Object{
			"listeners": listeners,
			"clusters":  append([]envoy.Object{envoy.Cluster("upstream", e.upstream.Listener.Addr().String())}, o.clusters...),
		},
	}
}

func newEdge(t testing.TB) *edge {
	t.Helper()
	e := &edge{t: t, http: freeAddress(t), https: freeAddress(t), admin: freeAddress(t)}
	e.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.reached.Add(1)
		e.received.Store(r)
		n, _ := io.Copy(io.Discard, r.Body)
		e.bytes.Add(n)
		io.WriteString(w, "upstream")
	}))
	t.Cleanup(e.upstream.Close)
	e.client = &http.Client{Timeout: eventWait, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := e.https
			if strings.HasSuffix(address, ":80") {
				to = e.http
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	return e
}

func start(t testing.TB, plugin any, o options) *edge {
	t.Helper()
	e := newEdge(t)
	var err error
	e.process, err = envoy.Start(t.TempDir(), e.config(plugin, o), max(o.workers, 1), nil)
	t.Cleanup(func() { e.process.Close() })
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *edge) do(method, url string, body io.Reader, headers ...string) (*http.Response, string) {
	e.t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	response, err := e.client.Do(r)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.process.Log())
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return response, string(b)
}

func (e *edge) get(key string) int {
	e.t.Helper()
	response, _ := e.do("GET", "https://api.test/x", nil, "Authorization: Bearer "+key)
	return response.StatusCode
}

// within asks until a status comes.
func (e *edge) within(what string, want int, key string) {
	e.t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		got := e.get(key)
		if got == want {
			return
		}
		if time.Since(begin) > eventWait {
			e.t.Fatalf("%s: status %d, not %d\n%s", what, got, want, e.process.Log())
		}
	}
}

// stat is a value of Envoy's statistics.
func (e *edge) stat(name string) string {
	e.t.Helper()
	response, err := http.Get("http://" + e.admin + "/stats")
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+": "); ok {
			return value
		}
	}
	return ""
}

// A configuration that cannot be right keeps Envoy from starting, with words that
// say how to mend it.
func TestRefusedConfigurations(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	with := func(change func(envoy.Object)) envoy.Object {
		b := a.inline()
		change(b)
		return envoy.Object{"bundles": envoy.Object{"shop": b}}
	}
	for name, tt := range map[string]struct {
		plugin any
		want   string
	}{
		"empty":         {"", "the configuration is empty"},
		"unknown field": {with(func(b envoy.Object) { b["fail_open"] = true }), "unknown field"},
		"stranger":      {with(func(b envoy.Object) { b["signers"] = newAPI(t, "other", "x.test").Signers }), "none of the trusted keys has signed it"},
		"given twice":   {`{"bundles": {}, "Bundles": {}}`, "given twice"},
		"who ends TLS":  {with(func(b envoy.Object) { b["tls_terminators"] = []string{"10.0.0.5"} }), "let the proxy in front speak TLS to Envoy"},
	} {
		e := newEdge(t)
		process, err := envoy.Start(t.TempDir(), e.config(tt.plugin, options{}), 1, nil)
		process.Close()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The configuration is the same as a Struct; a route can do without the filter;
// hosts that no policy names are passed where that is told; each host has its own
// bundle; later filters and the access log learn who called; counters arrive.
func TestOneListenerSeveralAPIs(t *testing.T) {
	one, two := newAPI(t, "one", "api.test"), newAPI(t, "two", "two.test")
	id, key := one.key()
	_, otherKey := two.key()
	log := filepath.Join(t.TempDir(), "access.log")
	e := start(t, "", options{
		filter: func(f envoy.Object) {
			config := f["typed_config"].(envoy.Object)["config"].(envoy.Object)
			config["configuration"] = envoy.Object{
				"@type": "type.googleapis.com/google.protobuf.Struct",
				"value": envoy.Object{
					"bundles": envoy.Object{"one": one.inline(), "two": two.inline()}, "other_hosts": "pass", "ready_path": "/ready", "filter_state": true,
				},
			}
		},
		routes: []envoy.Object{
			{
				"match": envoy.Object{"prefix": "/open"}, "route": envoy.Object{"cluster": "upstream"},
				"typed_per_filter_config": envoy.Object{"keystile": envoy.Object{
					"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true, "config": envoy.Object{},
				}},
			},
			envoy.To("upstream")[0],
		},
		hcm: func(h envoy.Object) {
			h["access_log"] = []envoy.Object{{"name": "file", "typed_config": envoy.Object{
				"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": log,
				"log_format": envoy.Object{"text_format_source": envoy.Object{"inline_string": "%RESPONSE_CODE% %FILTER_STATE(wasm.keystile:PLAIN)%\n"}},
			}}}
		},
	})
	for name, tt := range map[string]struct {
		url, key string
		want     int
	}{
		"its own bundle":          {"https://api.test/x", key, 200},
		"another bundle's host":   {"https://two.test/x", key, 401},
		"the other bundle's key":  {"https://two.test/x", otherKey, 200},
		"the other way round":     {"https://api.test/x", otherKey, 401},
		"no policy names it":      {"https://elsewhere.test/x", "", 200},
		"nor over plain HTTP":     {"http://elsewhere.test/x", "", 200},
		"a route without":         {"https://api.test/open", "", 200},
		"plain HTTP":              {"http://api.test/x", key, 403},
		"ready":                   {"http://api.test/ready", "", 200},
		"ready, with a query":     {"https://api.test/ready?x", "", 200},
		"without a key":           {"https://api.test/x", "", 401},
		"https in the scheme":     {"http://api.test/x", key, 403},
		"a prefix of the open":    {"https://api.test/ope", "", 401},
		"another spelling of one": {"https://API.test./x", key, 200},
	} {
		headers := []string{"X-Forwarded-Proto: https"}
		if tt.key != "" {
			headers = append(headers, "Authorization: Bearer "+tt.key)
		}
		if response, body := e.do("GET", tt.url, nil, headers...); response.StatusCode != tt.want {
			t.Errorf("%s: %d %s", name, response.StatusCode, body)
		}
	}
	e.do("GET", "https://api.test/x", nil, "Authorization: Bearer "+key)
	if r := e.received.Load(); r.Header.Get("Keystile-Key-Id") != id || r.Header.Get("Authorization") != "" {
		t.Errorf("the upstream got %v", r.Header)
	}
	deadline := time.Now().Add(eventWait)
	for time.Now().Before(deadline) && e.stat("wasmcustom.keystile.bundle.one.reason.ok.requests_total") != "3" {
		time.Sleep(50 * time.Millisecond)
	}
	for name, want := range map[string]string{
		"wasmcustom.keystile.bundle.one.reason.ok.requests_total":        "3",
		"wasmcustom.keystile.bundle.one.reason.plaintext.requests_total": "2",
		"wasmcustom.keystile.bundle.two.reason.unknown.requests_total":   "1",
		"wasmcustom.keystile.bundle.one.bundle_in_force":                 "1",
		"wasmcustom.keystile.bundle.one.bundle_keys":                     "1",
	} {
		if got := e.stat(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	e.process.Close() // writes the log out
	raw, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(raw), "reason=ok ") || !strings.Contains(string(raw), "key_id="+id) || !strings.Contains(string(raw), "403 \"reason=plaintext") && !strings.Contains(string(raw), "403 reason=plaintext") {
		t.Errorf("access log: %s, %v", raw, err)
	}
	if strings.Contains(string(raw), key) || strings.Contains(strings.Join(e.process.Lines(), "\n"), key) {
		t.Error("a key is in a log") // R74
	}
}

// R59: over HTTP a bundle is taken up, a revocation arrives, and whatever an origin
// does then, nothing is allowed that should not be; good keys go on.
func TestOrigins(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	first, second := newOrigin(t, a.dir), newOrigin(t, a.dir)
	first.set(status(503))
	second.set(status(503))
	_, good := a.key()
	id, revoked := a.key()
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.over("first", "second")}, "ready_path": "/ready"}, options{
		workers:  2,
		clusters: []envoy.Object{envoy.Cluster("first", first.address), envoy.Cluster("second", second.address)},
	})
	ready := func() int {
		response, _ := e.do("GET", "http://api.test/ready", nil)
		return response.StatusCode
	}
	if got := e.get(good); got != 503 || ready() != 503 {
		t.Errorf("without a bundle: %d, ready %d", got, ready())
	}
	second.set(nil) // one of two is enough
	e.within("the bundle is there", 200, good)
	e.within("and the other key", 200, revoked)
	for begin := time.Now(); ready() != 200; time.Sleep(20 * time.Millisecond) { // each time another worker may answer
		if time.Since(begin) > eventWait {
			t.Fatal("not ready")
		}
	}
	if _, err := a.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	e.within("revoked", 401, revoked)
	begin := time.Now()
	for range 20 {
		if got := e.get(revoked); got != 401 {
			t.Fatalf("a revoked key is %d %v after it was first refused", got, time.Since(begin))
		}
	}

	garbage := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "garbage") }
	for name, serve := range map[string]func(http.ResponseWriter, *http.Request){
		"garbage": garbage, "nothing": status(404), "errors": status(500),
		"a long answer": func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) },
		"an answer that never ends": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		first.set(serve)
		second.set(serve)
		time.Sleep(700 * time.Millisecond)
		if g, r := e.get(good), e.get(revoked); g != 200 || r != 401 {
			t.Errorf("origins serve %s: %d and %d", name, g, r)
		}
	}
	// An older bundle does not come back.
	first.set(nil)
	second.set(nil)
	manifest, err := os.ReadFile(filepath.Join(a.dir, "v1", "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	_, fresh := a.key()
	e.within("a new key", 200, fresh)
	if err := disk.ReplaceBytes(filepath.Join(a.dir, "v1", "manifest"), 0o644, manifest); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); !strings.Contains(strings.Join(e.process.Lines(), "\n"), "older than what was accepted"); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > eventWait {
			t.Fatal("the rollback is not told")
		}
	}
	for range 10 {
		if got := e.get(fresh); got != 200 {
			t.Errorf("a bundle was rolled back: %d", got)
		}
	}
}

// A request waits for the node that it needs, with its body, and is denied if the
// node cannot be had; a client that goes away leaves nothing behind.
func TestNodesOnDemand(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, key := a.key()
	o := newOrigin(t, a.dir)
	files := http.FileServer(http.Dir(a.dir))
	root := ""
	hold := make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, root) {
			<-hold
		}
		files.ServeHTTP(w, r)
	}
	opened, source, err := a.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	source.Close()
	root = opened.Manifest.Root.String()[2:]
	o.set(slow)
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.over("origin")}, "ready_path": "/ready"}, options{
		clusters: []envoy.Object{envoy.Cluster("origin", o.address)},
	})
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if response, _ := e.do("GET", "http://api.test/ready", nil); response.StatusCode == 200 {
			break
		}
		if time.Since(begin) > eventWait {
			t.Fatal("not ready")
		}
	}
	// The first to ask goes away; the others wait for the same node.
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "https://api.test/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	if _, err := e.client.Do(r); err == nil {
		t.Fatal("it did not wait")
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			body := strings.Repeat("x", 100_000)
			if response, text := e.do("POST", "https://api.test/x", strings.NewReader(body), "Authorization: Bearer "+key); response.StatusCode != 200 {
				t.Errorf("a request that waited: %d %s", response.StatusCode, text)
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	if got := e.reached.Load(); got != 0 {
		t.Errorf("%d requests went on without a decision", got)
	}
	close(hold)
	group.Wait()
	if e.reached.Load() != 20 || e.bytes.Load() != 20*100_000 {
		t.Errorf("the upstream got %d requests with %d bytes", e.reached.Load(), e.bytes.Load())
	}
	// Nodes that cannot be had: a new tree, and an origin that has only its notes.
	_, other := a.key()
	o.set(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/node/") {
			w.WriteHeader(404)
			return
		}
		files.ServeHTTP(w, r)
	})
	e.within("a node that no origin has", 503, other)
	o.set(nil)
	e.within("it is there again", 200, other)
}

// R69: of a request that is denied nothing goes upstream, whatever Envoy does with
// its body.
func TestBodyOfADenial(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, key := a.key()
	for _, allow := range []bool{false, true} {
		e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{filter: func(f envoy.Object) {
			f["typed_config"].(envoy.Object)["config"].(envoy.Object)["allow_on_headers_stop_iteration"] = allow
		}})
		for _, authorization := range []string{"", "Authorization: Bearer nobody", "Authorization: Bearer " + key} {
			read, write := io.Pipe()
			go func() {
				for range 50 {
					write.Write(make([]byte, 10_000))
				}
				write.Close()
			}()
			headers := []string{"X: y"}
			if authorization != "" {
				headers = append(headers, authorization)
			}
			r, err := http.NewRequest("POST", "https://api.test/x", read)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				r.Header.Set(name, value)
			}
			before := e.bytes.Load()
			response, err := e.client.Do(r)
			if err == nil {
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			read.Close()
			good := strings.HasSuffix(authorization, key)
			if got := e.bytes.Load() - before; good && got != 500_000 || !good && got != 0 {
				t.Errorf("allow_on_headers_stop_iteration %v, %q: %d bytes went upstream, %v", allow, fmt.Sprintf("%.22s", authorization), got, err)
			}
		}
		if e.reached.Load() != 1 {
			t.Errorf("the upstream was reached %d times", e.reached.Load())
		}
	}
}

// R56, R59: a bundle that expires denies everything from that moment on.
func TestExpiry(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, key := a.key()
	opened, source, err := a.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	publisher, err := control.ReadSigningKey(filepath.Join(filepath.Dir(a.File()), "publisher.key"))
	if err != nil {
		t.Fatal(err)
	}
	var nodes bundle.Nodes
	if err := opened.Nodes(nodes.Add); err != nil {
		t.Fatal(err)
	}
	const life = 12 * time.Second
	publication := &bundle.Publication{Notes: bundle.Notes{PolicyNote: opened.Notes.PolicyNote}, Compiled: source.Compiled, Note: &opened.PolicyNote}
	signed := time.Now()
	notes, err := publication.Manifest(bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}, signed.UnixMilli(), life, publisher)
	if err != nil {
		t.Fatal(err)
	}
	var pack bytes.Buffer
	if err := bundle.WritePack(&pack, notes, source.Compiled, &nodes); err != nil {
		t.Fatal(err)
	}
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": envoy.Object{
		"inline": base64.StdEncoding.EncodeToString(pack.Bytes()), "signers": a.Signers,
	}}}, options{})
	if got := e.get(key); time.Since(signed) < life-time.Second && got != 200 {
		t.Errorf("in force: %d", got)
	}
	time.Sleep(time.Until(signed.Add(life)))
	if got := e.get(key); got != 503 {
		t.Errorf("expired: %d", got)
	}
}

// A filter behind decides by what Keystile says of the caller, and a client cannot
// say it itself.
func TestLaterFilter(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, live := a.key()
	_, secret, err := a.Keyring().Create(context.Background(), control.NewKey{Kind: "secret", Environment: "test"})
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{filters: []envoy.Object{{
		"name": "rbac", "typed_config": envoy.Object{
			"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
			"rules": envoy.Object{"action": "ALLOW", "policies": envoy.Object{"live": envoy.Object{
				"permissions": []envoy.Object{{"any": true}},
				"principals": []envoy.Object{{"header": envoy.Object{
					"name": "keystile-environment", "string_match": envoy.Object{"exact": "live"},
				}}},
			}}},
		},
	}}})
	if got := e.get(live); got != 200 {
		t.Errorf("a live key: %d", got)
	}
	response, body := e.do("GET", "https://api.test/x", nil, "Authorization: Bearer "+secret.Reveal(), "Keystile-Environment: live")
	if response.StatusCode != 403 || !strings.Contains(body, "RBAC") {
		t.Errorf("a test key: %d %s", response.StatusCode, body)
	}
}

// buildTrap builds the filter as it would be if a request for /trap ended it in a way
// that nothing recovers from: the compiler is given another envoy.go.
func buildTrap(t *testing.T) (module string) {
	t.Helper()
	const (
		call = "lines, err := proxywasm.GetHttpRequestHeaders()\n"
		trap = `
func trap(lines [][2]string) {
	for _, l := range lines {
		if l == [2]string{":path", "/trap"} {
			trap(append(lines, l)) // until the stack ends
		}
	}
}
`
	)
	original, err := filepath.Abs("internal/envoy/envoy.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(source), call) != 1 {
		t.Fatalf("%s asks for the headers elsewhere", original)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, "envoy.go"), filepath.Join(dir, "overlay.json")
	text := strings.Replace(string(source), call, call+"\ttrap(lines)\n", 1) + trap
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		t.Fatal(err)
	}
	module = filepath.Join(dir, "trap.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-overlay", overlay, "-o", module, ".")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return module
}

// R67: a trap, from which nothing recovers, costs its request a denial, and the
// worker the time to load the module again; good keys are allowed then, and others
// are not.
func TestTrap(t *testing.T) {
	module := buildTrap(t)
	a := newAPI(t, "shop", "api.test")
	_, key := a.key()
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{filter: func(f envoy.Object) {
		vm := f["typed_config"].(envoy.Object)["config"].(envoy.Object)["vm_config"].(envoy.Object)
		vm["code"] = envoy.Object{"local": envoy.Object{"filename": module}}
	}})
	if got := e.get(key); got != 200 {
		t.Fatalf("before: %d", got)
	}
	for range 2 {
		reached := e.reached.Load()
		for _, authorization := range []string{"X: y", "Authorization: Bearer " + key} {
			r, err := http.NewRequest("GET", "https://api.test/trap", nil)
			if err != nil {
				t.Fatal(err)
			}
			name, value, _ := strings.Cut(authorization, ": ")
			r.Header.Set(name, value)
			response, err := e.client.Do(r)
			if err == nil {
				response.Body.Close()
				if response.StatusCode < 500 {
					t.Errorf("a trap is answered with %d", response.StatusCode)
				}
			}
		}
		if got := e.reached.Load(); got != reached {
			t.Errorf("%d requests went on", got-reached)
		}
		e.within("after the trap", 200, key)
		if got := e.get("sk_live_nobody"); got != 401 {
			t.Errorf("another key after the trap: %d", got)
		}
	}
}
