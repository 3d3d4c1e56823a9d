package caddymodule_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/policies"
)

// home is a control plane with bundles of shipped policies.
type home struct {
	*control.Home
	t     testing.TB
	dir   string
	extra string // global options
	// rewrite changes the global options; nil leaves them.
	rewrite func(string) string
}

// patience is how long tests wait for what has to happen: long, because a machine may
// be busy, and no verdict hangs on it.
const patience = time.Minute

func newHome(t testing.TB, names ...string) *home {
	t.Helper()
	h := &home{t: t, dir: t.TempDir()}
	var err error
	if h.Home, err = control.Open(h.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	for _, name := range names {
		document, err := policies.Policy(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Init(context.Background(), control.NewBundle{Name: name, Audience: bundle.DefaultAudience, Policy: document, File: name}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *home) bundle(name string) *control.Bundle {
	h.t.Helper()
	b, err := h.Home.Bundle(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *home) create(name string, n control.NewKey) (id, key string) {
	h.t.Helper()
	k, secret, err := h.bundle(name).Keyring().Create(context.Background(), n)
	if err != nil {
		h.t.Fatal(err)
	}
	return k.ID, secret.Reveal()
}

// globals are the global options with the home's bundles.
func (h *home) globals(extra string, names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n\tadmin off\n\tskip_install_trust\n\tlocal_certs\n\tstorage file_system %s\n%s\n\tkeystile {\n", filepath.Join(h.dir, "storage"), extra+h.extra)
	for _, name := range names {
		bundle := h.bundle(name)
		fmt.Fprintf(&b, "\t\tbundle %s {\n\t\t\tfile %s\n\t\t\tsigner_file %s\n\t\t\tstate %s\n\t\t}\n",
			name, bundle.File(), bundle.TrustFile(), filepath.Join(h.dir, "state", name))
	}
	b.WriteString("\t}\n}\n")
	if h.rewrite != nil {
		return h.rewrite(b.String())
	}
	return b.String()
}

func adapt(t testing.TB, caddyfile string) []byte {
	t.Helper()
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatalf("%v\n%s", err, caddyfile)
	}
	_ = warnings
	return config
}

func validate(t testing.TB, caddyfile string) error {
	t.Helper()
	config := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(adapt(t, caddyfile), config); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(config)
}

// Configurations in which Caddy's automatic redirect would answer plain HTTP
// for a protected host are refused; those in which it does not are taken.
func TestPlainHTTPAtLoad(t *testing.T) {
	h := newHome(t, "vinr", "default")
	for name, tt := range map[string]struct {
		extra, sites string
		ok           bool
	}{
		"https only":                  {"", "https://api.vinr.com {\n\tkeystile vinr\n}", false},
		"bare host":                   {"", "api.vinr.com {\n\tkeystile vinr\n}", false},
		"both":                        {"", "http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr\n}", true},
		"both, as two sites":          {"", "https://api.vinr.com {\n\tkeystile vinr\n}\nhttp://api.vinr.com {\n\tkeystile vinr\n}", true},
		"one host of two":             {"", "http://api.vinr.com, https://api.vinr.com, https://sandbox.api.vinr.com {\n\tkeystile vinr\n}", false},
		"another site redirects":      {"", "http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr\n}\nhttps://docs.vinr.com {\n\trespond hi\n}", true},
		"plain HTTP answered by hand": {"", "https://api.vinr.com {\n\tkeystile vinr\n}\nhttp://api.vinr.com {\n\tabort\n}", true},
		"redirects disabled":          {"\tauto_https disable_redirects", "https://api.vinr.com {\n\tkeystile vinr\n}", true},
		"automatic HTTPS off":         {"\tauto_https off", "https://api.vinr.com {\n\ttls internal\n\tkeystile vinr\n}", true},
		"wildcard":                    {"", "https://*.vinr.com {\n\tkeystile vinr\n}", false},
		"wildcard, both":              {"", "http://*.vinr.com, https://*.vinr.com {\n\tkeystile vinr\n}", true},
		"wildcard covers the host":    {"", "https://api.vinr.com {\n\tkeystile vinr\n}\nhttp://*.vinr.com {\n\tkeystile vinr\n}", true},
		"on a path only":              {"", "https://api.vinr.com {\n\thandle /v1/* {\n\t\tkeystile vinr\n\t}\n}", false},
		"in a route":                  {"", "http://api.vinr.com, https://api.vinr.com {\n\troute {\n\t\tkeystile vinr\n\t}\n}", true},
		"matched host inside":         {"", "https://*.vinr.com {\n\t@api host api.vinr.com\n\thandle @api {\n\t\tkeystile vinr\n\t}\n}", false},
		"any host":                    {"", "https:// {\n\ttls internal {\n\t\ton_demand\n\t}\n\tkeystile default\n}", false},
		"any host, both":              {"", "https:// {\n\ttls internal {\n\t\ton_demand\n\t}\n\tkeystile default\n}\nhttp:// {\n\tkeystile default\n}", true},
		"plain HTTP only":             {"", "http://api.vinr.com {\n\tkeystile vinr\n}", true},
		"another port":                {"", "https://api.vinr.com:8443 {\n\tkeystile vinr\n}", false},
	} {
		err := validate(t, h.globals(tt.extra, "vinr", "default")+tt.sites+"\n")
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "name the HTTP site too") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys that are limited to addresses need an address that clients cannot choose.
func TestTrustedProxiesAtLoad(t *testing.T) {
	h := newHome(t, "vinr", "example")
	for name, tt := range map[string]struct {
		servers, policy string
		ok              bool
	}{
		"no proxies":          {"", "example", true},
		"proxies, not strict": {"\tservers {\n\t\ttrusted_proxies static 10.0.0.0/8\n\t}", "example", false},
		"proxies, strict":     {"\tservers {\n\t\ttrusted_proxies static 10.0.0.0/8\n\t\ttrusted_proxies_strict\n\t}", "example", true},
		"no limits to IPs":    {"\tservers {\n\t\ttrusted_proxies static 10.0.0.0/8\n\t}", "vinr", true},
	} {
		err := validate(t, h.globals(tt.servers, tt.policy)+"http://a.example {\n\tkeystile "+tt.policy+"\n}\n")
		if (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "trusted_proxies_strict") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A configuration that cannot be right is refused at load.
func TestRefusedAtLoad(t *testing.T) {
	h := newHome(t, "vinr")
	signer := h.bundle("vinr").Signers[0]
	bundle := func(lines string) string {
		return "{\n\tkeystile {\n\t\tbundle vinr {\n" + lines + "\n\t\t}\n\t}\n}\nhttp://a.example {\n\tkeystile vinr\n}\n"
	}
	for name, tt := range map[string]struct{ caddyfile, want string }{
		"no such bundle":       {"http://a.example {\n\tkeystile vinr\n}\n", "is not configured"},
		"another bundle":       {h.globals("", "vinr") + "http://a.example {\n\tkeystile vinfer\n}\n", "the global options have"},
		"no file":              {bundle("signer " + signer), "no file"},
		"no signer":            {bundle("file /x"), "no signer"},
		"malformed signer":     {bundle("file /x\nsigner x"), "malformed"},
		"missing signer file":  {bundle("file /x\nsigner_file /nonexistent"), "signer_file"},
		"threshold too high":   {bundle("file /x\nthreshold 2\nsigner " + signer), "signatures are demanded"},
		"everyone ends TLS":    {bundle("file /x\ntls_terminators 0.0.0.0/0\nsigner " + signer), "trust everyone"},
		"terminator no prefix": {bundle("file /x\ntls_terminators proxy\nsigner " + signer), "neither an IP address"},
		"one state for two":    {bundle("file /x\nstate /x.state\nsigner " + signer + "\n}\nbundle other {\nfile /y\nstate /x.state\nsigner " + signer), "each its own"},
		"unset placeholder":    {bundle("file {env.KEYSTILE_NOT_SET}\nsigner " + signer), "KEYSTILE_NOT_SET"},
	} {
		if err := validate(t, tt.caddyfile); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A bundle that is not there yet is no mistake: requests are denied until it is.
	if err := validate(t, bundle("file /nonexistent/vinr.keystile\nsigner "+signer)); err != nil {
		t.Errorf("a bundle that is not there yet: %v", err)
	}
}

// server is a Caddy of this process with an upstream that counts.
type server struct {
	t           testing.TB
	http, https string
	upstream    *httptest.Server
	reached     chan *http.Request
}

// start loads a configuration and waits until its certificates are made.
func start(t testing.TB, h *home, names []string, sites func(s *server) string) *server {
	t.Helper()
	s := load(t, h, names, sites)
	host := "api.vinr.com"
	if !slices.Contains(names, "vinr") {
		host = "api.example.com"
	}
	s.ready(host)
	return s
}

// ready waits until host has a certificate.
func (s *server) ready(host string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("no certificate: ", err)
		}
	}
}

func load(t testing.TB, h *home, names []string, sites func(s *server) string) *server {
	t.Helper()
	s := &server{t: t, reached: make(chan *http.Request, 100)}
	s.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // trailers come after it
		select {
		case s.reached <- r:
		default: // nobody waits for so many
		}
		io.WriteString(w, "upstream")
	}))
	t.Cleanup(s.upstream.Close)
	for _, to := range []*string{&s.http, &s.https} {
		var err error
		if *to, err = address.Free(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.load(h.globals(s.ports(), names...) + sites(s)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ports are the global options for the server's addresses.
func (s *server) ports() string {
	_, port, _ := net.SplitHostPort(s.http)
	_, tlsPort, _ := net.SplitHostPort(s.https)
	return fmt.Sprintf("\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1\n", port, tlsPort)
}

// load replaces the configuration.
func (s *server) load(caddyfile string) error { return caddy.Load(adapt(s.t, caddyfile), true) }

func caddyStop() error { return caddy.Stop() }

// clientOf speaks one protocol of TLS's alone.
func (s *server) clientOf(protocol string) *http.Transport {
	t := s.client().Transport.(*http.Transport)
	t.TLSClientConfig.NextProtos = []string{protocol}
	t.ForceAttemptHTTP2 = true
	return t
}

func (s *server) dialQUIC(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
	return quic.DialAddr(ctx, s.https, tc, qc)
}

func (s *server) client() *http.Client {
	return &http.Client{
		Timeout: patience,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				to := s.https
				if strings.HasSuffix(address, ":80") {
					to = s.http
				}
				return new(net.Dialer).DialContext(ctx, network, to)
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *server) do(method, url string, headers ...string) *http.Response {
	s.t.Helper()
	response, err := s.client().Do(newRequest(s.t, method, url, headers...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response
}

func newRequest(t testing.TB, method, url string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func body(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

const vinrSites = "http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr\n\treverse_proxy %s\n}\n"

func vinr(s *server) string { return fmt.Sprintf(vinrSites, s.upstream.Listener.Addr()) }

// within asks until a status comes. A change is in use within a second; on a
// machine that is busy with other tests it may take longer to see that.
func (s *server) within(what string, want int, headers ...string) {
	s.t.Helper()
	begin := time.Now()
	for {
		got := s.do("GET", "https://api.vinr.com/v1/payments", headers...).StatusCode
		took := time.Since(begin)
		if got == want {
			if took > time.Second {
				s.t.Logf("%s: seen after %v", what, took)
			}
			return
		}
		if took > patience {
			s.t.Fatalf("%s: status %d after %v, not %d", what, got, took, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// R59, R82: a running edge takes a change over within a second; a bad bundle
// leaves the good one in use; a missing one denies until it is there.
func TestBundleChanges(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	away := b.File() + ".away"
	if err := os.Rename(b.File(), away); err != nil {
		t.Fatal(err)
	}
	s := start(t, h, []string{"vinr"}, vinr)
	if r := s.do("GET", "https://api.vinr.com/v1/payments", "X-Api-Key: x"); r.StatusCode != 503 || r.Header.Get("Retry-After") != "5" {
		t.Errorf("without a bundle: %d %v", r.StatusCode, r.Header)
	}
	if err := os.Rename(away, b.File()); err != nil {
		t.Fatal(err)
	}
	s.within("the bundle is there", 401, "X-Api-Key: x")
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	s.within("a key was created", 200, header)
	good, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"garbage": []byte("garbage"), "empty": nil, "truncated": good[:len(good)/2]} {
		if err := os.WriteFile(b.File()+".new", bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(b.File()+".new", b.File()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 200 * time.Millisecond)
		if got := s.do("GET", "https://api.vinr.com/v1/payments", header).StatusCode; got != 200 {
			t.Errorf("%s: the good bundle is not in use any more: %d", name, got)
		}
	}
	if err := os.WriteFile(b.File(), good, 0o600); err != nil { // the publisher asks what is in force
		t.Fatal(err)
	}
	if _, err := b.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	s.within("the key was revoked", 401, header)
	// The bundle from before the revocation does not come back.
	if err := os.WriteFile(b.File(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * 200 * time.Millisecond)
	if got := s.do("GET", "https://api.vinr.com/v1/payments", header).StatusCode; got != 401 {
		t.Errorf("a bundle was rolled back: %d", got)
	}
}

// R2: over plain HTTP the answer is the same, byte for byte, whatever was sent.
func TestPlainHTTPAnswers(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, vinr)
	var first string
	for _, headers := range [][]string{
		nil, {"X-Api-Key: " + key}, {"X-Api-Key: wrong"}, {"Authorization: Bearer " + key}, {"X-Forwarded-Proto: https"},
		{"Content-Type: application/grpc"}, {"Origin: https://a.example", "Access-Control-Request-Method: POST"}, {"X-Api-Key: a", "X-Api-Key: b"},
	} {
		for _, target := range []string{"/v1/payments", "/", "/v1/tokens", "/v1/payments?key=" + key, "/.well-known/x"} {
			r := s.do("GET", "http://api.vinr.com"+target, headers...)
			r.Header.Del("Date")
			r.Header.Del("Request-Id")
			if r.Header.Get("Location") != "" || r.StatusCode != 403 || !r.Close {
				t.Errorf("%q %s: %d %v, close %v", headers, target, r.StatusCode, r.Header, r.Close)
			}
			seen := fmt.Sprint(r.StatusCode, r.Header, body(r))
			if first == "" {
				first = seen
			}
			if seen != first {
				t.Errorf("%q %s:\n%s\nis not\n%s", headers, target, seen, first)
			}
		}
	}
	if len(s.reached) > 0 {
		t.Error("the upstream was reached")
	}
}

// ACME's HTTP challenge is answered on the HTTP port of a protected site, and
// nothing else is. (The CA is one that nobody listens for; the challenge lies in
// storage, as another instance of a cluster would have put it there.)
func TestACMEChallenge(t *testing.T) {
	h := newHome(t, "vinr")
	const ca = "https://127.0.0.1:1/dir"
	issuer := certmagic.StorageKeys.Safe((&certmagic.ACMEIssuer{CA: ca}).IssuerKey())
	file := filepath.Join(h.dir, "storage", "acme", issuer, "challenge_tokens", "api.vinr.com.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	challenge, err := json.Marshal(acme.Challenge{
		Type: acme.ChallengeTypeHTTP01, Token: "token", KeyAuthorization: "token.thumbprint",
		Identifier: acme.Identifier{Type: "dns", Value: "api.vinr.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, challenge, 0o600); err != nil {
		t.Fatal(err)
	}
	s := load(t, h, []string{"vinr"}, func(*server) string {
		return "http://api.vinr.com {\n\tkeystile vinr\n}\nhttps://api.vinr.com {\n\ttls {\n\t\tissuer acme {\n\t\t\tdir " + ca + "\n\t\t}\n\t}\n\tkeystile vinr\n}\n"
	})
	const url = "http://api.vinr.com/.well-known/acme-challenge/"
	if r := s.do("GET", url+"token"); r.StatusCode != 200 || body(r) != "token.thumbprint" {
		t.Errorf("the challenge gets %d %q", r.StatusCode, body(r))
	}
	for _, path := range []string{"other", "", "token/x"} {
		if r := s.do("GET", url+path, "X-Api-Key: x"); r.StatusCode != 403 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
}

// Errors for handle_errors, placeholders, and rewrites before the handler.
func TestHandlerOptions(t *testing.T) {
	h := newHome(t, "vinr")
	id, key := h.create("vinr", control.NewKey{Kind: "restricted", Environment: "live", Tenant: "acct_1", Scopes: []string{"refunds:read"}})
	site := func(lines string) func(*server) string {
		return func(*server) string { return "http://api.vinr.com, https://api.vinr.com {\n" + lines + "\n}\n" }
	}
	const show = "\trespond \"{http.auth.user.id} {http.keystile.kind} {http.keystile.environment} {http.keystile.tenant} {http.keystile.scopes} {http.keystile.reason} {http.keystile.route} {http.keystile.policy} {header.X-Api-Key}|\""
	good := "X-Api-Key: " + key
	for _, tt := range []struct {
		name, lines, path string
		status            int
		body              string
		requestID         bool
	}{
		{"placeholders", "\tkeystile vinr\n" + show, "/v1/refunds", 200, id + " restricted live acct_1 refunds:read ok resources vinr |", false},
		{"pass without handle_errors", "\tkeystile vinr {\n\t\terrors pass\n\t}\n" + show, "/v1/payments", 403, "", true},
		{"pass to handle_errors", "\tkeystile vinr {\n\t\terrors pass\n\t}\n" + show + "\n\thandle_errors {\n\t\trespond \"{err.status_code} {http.keystile.reason} {http.keystile.key_id} {http.auth.user.id}|\"\n\t}", "/v1/payments", 403, "403 scope " + id + " {http.auth.user.id}|", true},
		{"rewritten before", "\trewrite /old /v1/refunds\n\tkeystile vinr\n" + show, "/old", 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Keys cannot be verified at the moment."}`, true},
		{"path prefix taken off before", "\thandle_path /api/* {\n\t\tkeystile vinr\n\t" + show + "\n\t}", "/api/v1/refunds", 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Keys cannot be verified at the moment."}`, true},
		{"rewritten, and decided by that", "\trewrite /old /v1/refunds\n\tkeystile vinr {\n\t\trewritten\n\t}\n" + show, "/old", 200, id + " restricted live acct_1 refunds:read ok resources vinr |", false},
		{"rewritten to what the key may not do", "\trewrite /old /v1/payments\n\tkeystile vinr {\n\t\trewritten\n\t}\n" + show, "/old", 403, `{"type":"about:blank","title":"Forbidden","status":403,"detail":"This key may not do this."}`, true},
		{"query added before", "\turi query +a b\n\tkeystile vinr\n" + show, "/v1/refunds", 503, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Keys cannot be verified at the moment."}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, h, []string{"vinr"}, site(tt.lines))
			r := s.do("GET", "https://api.vinr.com"+tt.path, good)
			if got := body(r); r.StatusCode != tt.status || got != tt.body || (r.Header.Get("Request-Id") != "") != tt.requestID {
				t.Errorf("%d %q %v", r.StatusCode, got, r.Header)
			}
		})
	}
}

// R39, R40: a client has the socket's address, whatever it writes, where no proxy is
// trusted.
func TestClientAddress(t *testing.T) {
	h := newHome(t, "example")
	_, others := h.create("example", control.NewKey{Kind: "secret", Environment: "live", IPs: []string{"192.0.2.1"}})
	_, own := h.create("example", control.NewKey{Kind: "secret", Environment: "live", IPs: []string{"127.0.0.1"}})
	s := start(t, h, []string{"example"}, func(s *server) string {
		return fmt.Sprintf("http://api.example.com, https://api.example.com {\n\tkeystile example\n\treverse_proxy %s\n}\n", s.upstream.Listener.Addr())
	})
	for name, headers := range map[string][]string{"no header": nil, "another's": {"X-Forwarded-For: 192.0.2.1"}, "others": {"Forwarded: for=192.0.2.1", "X-Real-Ip: 192.0.2.1"}} {
		for key, want := range map[string]int{others: 403, own: 200} {
			if r := s.do("GET", "https://api.example.com/v1/x", append(headers, "Authorization: Bearer "+key)...); r.StatusCode != want {
				t.Errorf("%s: %d, not %d", name, r.StatusCode, want)
			}
		}
	}
}

// R30: trailers never bring an identity.
func TestTrailers(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, vinr)
	conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: "api.vinr.com", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/payments HTTP/1.1\r\nHost: api.vinr.com\r\nX-Api-Key: %s\r\nTransfer-Encoding: chunked\r\nTrailer: Keystile-Tenant, X-Sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nKeystile-Tenant: evil\r\nX-Sum: 1\r\nX-Api-Key: x\r\n\r\n", key)
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	r := <-s.reached
	if r.Trailer.Get("X-Sum") != "1" {
		t.Errorf("a trailer of the client's own is lost: %v", r.Trailer)
	}
	for name := range r.Trailer {
		if strings.HasPrefix(name, "Keystile") || name == "X-Api-Key" {
			t.Errorf("the upstream got the trailer %s", name)
		}
	}
	if r.Header.Get("Keystile-Tenant") != "" {
		t.Error("the upstream got an identity of the client's")
	}
}

// R4: early data of HTTP/3 is refused, with the answer that asks to send again.
func TestEarlyData(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, vinr)
	cache := tls.NewLRUClientSessionCache(10)
	send := func(early bool) (int, bool) {
		config := &tls.Config{ServerName: "api.vinr.com", InsecureSkipVerify: true, NextProtos: []string{"h3"}, ClientSessionCache: cache}
		tr := &http3.Transport{TLSClientConfig: config, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, s.https, tc, qc)
		}}
		defer tr.Close()
		method := http.MethodGet
		if early {
			method = http3.MethodGet0RTT
		}
		r, err := http.NewRequest(method, "https://api.vinr.com/v1/payments", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", key)
		response, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		time.Sleep(50 * time.Millisecond) // for the session ticket
		return response.StatusCode, response.TLS.DidResume
	}
	if status, _ := send(false); status != 200 {
		t.Fatalf("HTTP/3: %d", status)
	}
	// Whether early data arrives before the handshake is over is for the two
	// ends to find out: it must be refused when it does, and does so nearly
	// always on one machine.
	var seen []int
	for range 20 {
		status, _ := send(true)
		seen = append(seen, status)
		if status == http.StatusTooEarly {
			return
		}
	}
	if !slices.Contains(seen, http.StatusTooEarly) {
		t.Errorf("no early data was refused: %v", seen)
	}
}

// A reload keeps the edge with its caches, and a bundle cannot be rolled back
// by it.
func TestReload(t *testing.T) {
	h := newHome(t, "vinr")
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	b := h.bundle("vinr")
	before, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, h, []string{"vinr"}, vinr)
	header := "X-Api-Key: " + key
	s.within("in use", 200, header)
	if _, err := b.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	s.within("revoked", 401, header)
	if err := os.WriteFile(b.File(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.http)
	_, tlsPort, _ := net.SplitHostPort(s.https)
	extra := fmt.Sprintf("\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1", port, tlsPort)
	for range 2 {
		if err := caddy.Load(adapt(t, h.globals(extra, "vinr")+vinr(s)), true); err != nil {
			t.Fatal(err)
		}
		if got := s.do("GET", "https://api.vinr.com/v1/payments", header).StatusCode; got != 401 {
			t.Errorf("after a reload: %d", got)
		}
	}
	// A reload that is refused leaves everything as it was.
	if err := caddy.Load(adapt(t, h.globals(extra, "vinr")+"https://api.vinr.com {\n\tkeystile vinr\n}\n"), true); err == nil {
		t.Error("a configuration that redirects plain HTTP was loaded")
	}
	if got := s.do("GET", "https://api.vinr.com/v1/payments", header).StatusCode; got != 401 {
		t.Errorf("after a refused reload: %d", got)
	}
}
