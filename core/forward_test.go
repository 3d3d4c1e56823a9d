package core_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/policies"
)

// verifierWith is a verifier under a policy in YAML with one key of a kind.
func verifierWith(t testing.TB, document, prefix string, rec bundle.Record) (*core.Verifier, string) {
	t.Helper()
	p, err := compile.Compile("policy", []byte(document), compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := credential.Generate(prefix, "live")
	if err != nil {
		t.Fatal(err)
	}
	rec.Digest, rec.Environment, rec.Status = secret.Digest(), "live", bundle.Active
	v := newVerifier(t, core.Config{})
	now := time.Now()
	if err := v.Activate(newPublisher(t, p, now.Add(-time.Hour)).bundle(now.Add(-time.Minute), rec)); err != nil {
		t.Fatal(err)
	}
	return v, secret.Reveal()
}

func defaultPolicy(t testing.TB) string {
	t.Helper()
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	return string(document)
}

// R9, R12, R17: a path that an upstream could take for another route's is no route,
// in every combination of the ways to read it, and a scope is needed in each.
func TestReadings(t *testing.T) {
	const document = `name: x
sources:
  - {header: Authorization, scheme: Bearer}
kinds:
  restricted: {prefix: rk, scoped: true}
  secret: {prefix: sk}
environments: {live: }
grants: {}
scopes:
  "{thing}:read":
routes:
  - name: revoke
    path: "/v1/keys:revoke"
    kinds: [secret]
  - name: mail
    path: "/v1/Mail@Home/x"
    kinds: [secret]
  - name: tenants
    path: ["/t/{tenant}", "/t/{tenant}/{rest...}"]
    tenant: tenant
    scopes: {GET: none}
  - name: things
    path: ["/v1/{thing}", "/v1/{thing}/{rest...}"]
    scopes: {GET: "{thing}:read"}
`
	v, key := verifierWith(t, document, "rk", bundle.Record{
		KeyID: "rk_1", Kind: "restricted", Tenant: "acct:eu", Scopes: []string{"Mixed:read", "Upper:read", "keys:read", "mixed:read", "only:read"},
	})
	mux := http.NewServeMux()
	for _, pattern := range []string{"/v1/keys:revoke", "/v1/Mail@Home/x", "/v1/{thing}", "/v1/{thing}/{rest...}", "/t/{tenant}", "/t/{tenant}/{rest...}"} {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	for path, want := range map[string]policy.Reason{
		"/v1/keys:revoke":         policy.WrongKind,
		"/v1/keys%3Arevoke":       policy.NoRoute,
		"/v1/keys%3arevoke":       policy.NoRoute,
		"/v1/KEYS%3Arevoke":       policy.NoRoute,
		"/v1/KEYS%3Arevoke/":      policy.NoRoute,
		"/v1/keys%3Arevoke/":      policy.NoRoute,
		"/v1/keys:revoke/":        policy.NoRoute,
		"/v1/Keys:Revoke":         policy.NoRoute,
		"/v1/keys":                policy.OK,
		"/v1/keys/a%3Ab":          policy.OK,
		"/v1/mail%40home/x":       policy.NoRoute,
		"/v1/Mail%40Home/x":       policy.NoRoute,
		"/v1/mail%40home/x/":      policy.NoRoute,
		"/v1/only/jo%40example":   policy.OK,
		"/v1/only/a%20b":          policy.OK,
		"/v1/only":                policy.OK,
		"/v1/ONLY":                policy.Scope, // granted under neither reading alone
		"/v1/Only":                policy.Scope,
		"/v1/Mixed":               policy.OK, // granted under both
		"/v1/Upper":               policy.Scope,
		"/v1/only%3Ax":            policy.Scope,
		"/t/acct:eu":              policy.OK,
		"/t/acct%3Aeu":            policy.OK,
		"/t/acct%3Aeu/":           policy.OK,
		"/t/acct%3aeu/x":          policy.OK,
		"/t/ACCT%3Aeu":            policy.Tenant,
		"/t/acct%20eu":            policy.Tenant,
		"/t/acct:us":              policy.Tenant,
		"/t/acct%3Aus":            policy.Tenant,
		"/v1/keys%3Arevoke/x%3Ay": policy.Scope,
	} {
		d := v.Verify(&core.Request{TLS: true, Method: "GET", Authority: "x.test", Path: path, Headers: core.Lines{{Name: "Authorization", Value: "Bearer " + key}}})
		wantReason(t, path, d, want)
		// Go's own mux decodes paths: what it would run is the route that was decided on.
		if _, pattern := mux.Handler(httptest.NewRequest("GET", path, nil)); d.Outcome == core.Allow && strings.Contains(pattern, "keys:revoke") {
			t.Errorf("%s is allowed, and the upstream runs %s", path, pattern)
		}
	}
}

// R32: the API key goes on under no name, and a line that a proxy may have written is
// no reason to send the rest on.
func TestKeyElsewhere(t *testing.T) {
	v, key := verifierWith(t, defaultPolicy(t), "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
	other, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	encoded := fmt.Sprintf("%%%02x%s", key[0], key[1:])
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct {
		name, value string
		want        policy.Reason
		kept        bool
	}{
		{"X-Api-Key", key, policy.OK, false},
		{"X-Note", "before " + key + " behind", policy.OK, false},
		{"X-Note", encoded, policy.OK, false},
		{"Referer", "https://a.test/?k=" + key, policy.OK, false},
		{"X-Original-Url", "/x?k=" + encoded, policy.OK, false},
		{"Proxy-Authorization", basic(key + ":"), policy.OK, false},
		{"Proxy-Authorization", strings.Replace(basic("user:"+key), "Basic", "bASIC", 1), policy.OK, false},
		{"Proxy-Authorization", strings.TrimRight(basic("u:"+key), "="), policy.OK, false},
		{"Proxy-Authorization", basic("user:"+key) + " ", policy.OK, false},
		{"X-Api-Key", other.Reveal(), policy.OK, true},
		{"X-Api-Key", key[:len(key)-1], policy.OK, true},
		{"X-Forwarded-Uri", "/x?k=" + key, policy.Malformed, false},
		{"x_forwarded_for", key, policy.Malformed, false},
		{"Forwarded", "for=" + key, policy.Malformed, false},
		{"Via", "1.1 " + encoded, policy.Malformed, false},
		{"X-Real-Ip", key, policy.Malformed, false},
		{"X-Envoy-Original-Path", "/" + key, policy.Malformed, false},
		{"Content-Disposition", key, policy.Malformed, false},
		{"Content-Type", "text/plain; x=" + key, policy.Malformed, false},
		{"Te", key, policy.Malformed, false},
		{"Trailer", key, policy.Malformed, false},
		{"Expect", key, policy.Malformed, false},
		{"Sec-WebSocket-Protocol", key, policy.Malformed, false},
	} {
		r := request(key)
		r.Headers = core.Lines(append(r.Headers.Lines(), core.Header{Name: tt.name, Value: tt.value}))
		d := v.Verify(r)
		wantReason(t, tt.name+": "+tt.value, d, tt.want)
		if _, ok := d.Line(tt.name, tt.value); ok != tt.kept {
			t.Errorf("%s: goes on %v, not %v", tt.name, ok, tt.kept)
		}
		if ok := d.Trailer(tt.name, tt.value); ok != tt.kept {
			t.Errorf("%s as a trailer: goes on %v, not %v", tt.name, ok, tt.kept)
		}
		if _, ok := d.Line(tt.name, "something else"); !ok && tt.want == policy.OK {
			t.Errorf("%s: another line of the name does not go on", tt.name)
		}
		if text := fmt.Sprintf("%v %+v %#v %s", d, d, d, d); strings.Contains(text, key) {
			t.Errorf("a decision that is printed shows the key: %s", text)
		}
	}
	r := request(key)
	r.Authority = key[:40] + ".test"
	if d := v.Verify(r); d.Reason != policy.OK {
		t.Errorf("a part of the key in the host: %v", d)
	}
	r.Authority = key + ".test"
	wantReason(t, "the key in the host", v.Verify(r), policy.Malformed)
}

// R5: a request that goes on is one request, or one WebSocket.
func TestUpgrade(t *testing.T) {
	v, key := verifierWith(t, defaultPolicy(t), "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
	clean := []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13", "Connection: Upgrade"}
	with := func(lines ...string) []string { return append(slices.Clone(clean), lines...) }
	for name, tt := range map[string]struct {
		lines      []string
		change     func(*core.Request)
		want       policy.Reason
		upgrade    bool
		connection string
	}{
		"none":             {nil, nil, policy.OK, false, ""},
		"h2c":              {[]string{"Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "Connection: keep-alive, Upgrade, HTTP2-Settings"}, nil, policy.OK, false, "keep-alive"},
		"TLS":              {[]string{"Upgrade: TLS/1.2", "Connection: Upgrade"}, nil, policy.OK, false, ""},
		"two others":       {[]string{"Upgrade: h2c", "Upgrade: TLS/1.2"}, nil, policy.OK, false, ""},
		"websocket":        {with("Upgrade: websocket"), nil, policy.OK, true, "Upgrade"},
		"case":             {with("uPGRADE: WebSocket"), nil, policy.OK, true, "Upgrade"},
		"and settings":     {with("Upgrade: websocket", "HTTP2-Settings: x"), nil, policy.OK, true, "Upgrade"},
		"list":             {with("Upgrade: websocket, h2c"), nil, policy.Malformed, false, ""},
		"list behind":      {with("Upgrade: h2c ,\twebsocket"), nil, policy.Malformed, false, ""},
		"version":          {with("Upgrade: websocket/13"), nil, policy.Malformed, false, ""},
		"twice":            {with("Upgrade: websocket", "Upgrade: websocket"), nil, policy.Malformed, false, ""},
		"beside another":   {with("Upgrade: h2c", "Upgrade: websocket"), nil, policy.Malformed, false, ""},
		"before another":   {with("Upgrade: websocket", "Upgrade: h2c"), nil, policy.Malformed, false, ""},
		"POST":             {with("Upgrade: websocket"), func(r *core.Request) { r.Method = "POST" }, policy.Malformed, false, ""},
		"HEAD":             {with("Upgrade: websocket"), func(r *core.Request) { r.Method = "HEAD" }, policy.Malformed, false, ""},
		"body":             {with("Upgrade: websocket"), func(r *core.Request) { r.Body = true }, policy.Malformed, false, ""},
		"HTTP/2":           {with("Upgrade: websocket"), func(r *core.Request) { r.HTTP11 = false }, policy.Malformed, false, ""},
		"no key":           {append(slices.Clone(clean[1:]), "Upgrade: websocket"), nil, policy.Malformed, false, ""},
		"no version":       {[]string{clean[0], "Upgrade: websocket"}, nil, policy.Malformed, false, ""},
		"two keys":         {with("Upgrade: websocket", clean[0]), nil, policy.Malformed, false, ""},
		"two versions":     {with("Upgrade: websocket", "Sec-WebSocket-Version: 8"), nil, policy.Malformed, false, ""},
		"CONNECT":          {nil, func(r *core.Request) { r.Method = "CONNECT" }, policy.Malformed, false, ""},
		"TRACE":            {nil, func(r *core.Request) { r.Method = "TRACE" }, policy.Malformed, false, ""},
		"denied otherwise": {with("Upgrade: websocket", "Authorization: Bearer x"), nil, policy.Multiple, false, ""},
	} {
		r := request(key)
		r.HTTP11 = true
		lines := r.Headers.Lines()
		for _, l := range tt.lines {
			n, value, _ := strings.Cut(l, ": ")
			lines = append(lines, core.Header{Name: n, Value: value})
		}
		r.Headers = core.Lines(lines)
		if tt.change != nil {
			tt.change(r)
		}
		d := v.Verify(r)
		wantReason(t, name, d, tt.want)
		if _, ok := d.Line("Upgrade", "websocket"); ok != tt.upgrade || d.WebSocket() != tt.upgrade {
			t.Errorf("%s: the Upgrade line goes on %v, a WebSocket %v; not %v", name, ok, d.WebSocket(), tt.upgrade)
		}
		if _, ok := d.Line("HTTP2-Settings", "x"); ok {
			t.Errorf("%s: HTTP2-Settings goes on", name)
		}
		if i := slices.IndexFunc(lines, func(h core.Header) bool { return h.Name == "Connection" }); i >= 0 {
			if got, _ := d.Line("Connection", lines[i].Value); got != tt.connection {
				t.Errorf("%s: Connection becomes %q, not %q", name, got, tt.connection)
			}
		}
	}
}

// R20: a line that asks for another method than the request's is no request.
func TestMethodOverride(t *testing.T) {
	v, key := verifierWith(t, defaultPolicy(t), "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
	for _, name := range []string{"X-HTTP-Method-Override", "x_http_method", "X.Method~Override", "X!HTTP+METHOD"} {
		for value, want := range map[string]policy.Reason{"GET": policy.OK, "DELETE": policy.Malformed, "get": policy.Malformed, "": policy.Malformed, "GET, DELETE": policy.Malformed} {
			r := request(key)
			r.Headers = core.Lines(append(r.Headers.Lines(), core.Header{Name: name, Value: value}))
			d := v.Verify(r)
			wantReason(t, name+": "+value, d, want)
			if _, ok := d.Line(name, value); ok || d.Trailer(name, value) {
				t.Errorf("%s goes on", name)
			}
		}
	}
}

// What is removed is removed on every outcome: an error page gets no less taken away
// than the next handler.
func TestEveryOutcome(t *testing.T) {
	document := strings.Replace(defaultPolicy(t), "routes:\n", "routes:\n  - name: open\n    path: /open\n    public: true\n", 1)
	v, key := verifierWith(t, document, "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
	for name, change := range map[string]func(*core.Request){
		"allowed":   func(*core.Request) {},
		"public":    func(r *core.Request) { r.Path = "/open" },
		"plain":     func(r *core.Request) { r.TLS = false },
		"malformed": func(r *core.Request) { r.Path = "//" },
		"in URL":    func(r *core.Request) { r.Query = "k=" + key },
		"unknown": func(r *core.Request) {
			r.Headers = core.Lines{{Name: "Authorization", Value: "Bearer " + key[:len(key)-1] + "_"}}
		},
		"cookie":    func(r *core.Request) { r.Headers = core.Lines{{Name: "Cookie", Value: key}} },
		"panic":     func(r *core.Request) { r.Headers = panics{} },
		"no bundle": nil,
	} {
		r := request(key)
		asked := v
		if change == nil {
			asked = newVerifier(t, core.Config{})
		} else {
			change(r)
		}
		d := asked.Verify(r)
		for _, line := range []string{"Authorization", "authorization", "Keystile-Tenant", "Keystile~Kind", "X-HTTP-Method", "Upgrade", "HTTP2-Settings"} {
			if _, ok := d.Line(line, "x"); ok || d.Trailer(line, "x") {
				t.Errorf("%s: %s goes on", name, line)
			}
		}
		for _, line := range []string{"Cookie", "X-Copy"} {
			if _, ok := d.Line(line, "k="+key); ok && d.Outcome == core.Deny {
				t.Errorf("%s: %s that holds a key goes to an error page", name, line)
			}
		}
		if d.Outcome == core.Deny && (d.MayPass("/x?k="+key) || d.MayPass("/x") == (name == "no bundle")) {
			t.Errorf("%s: which URL may pass", name)
		}
		if got, _ := d.Line("Connection", "close, Keystile-Kind"); got != "close" && name != "no bundle" {
			t.Errorf("%s: Connection becomes %q", name, got)
		}
	}
}

// A panic is answered as the policy says.
func TestPanicAnswer(t *testing.T) {
	for name, want := range map[string]string{
		"vesuviopay": `{"success":false,"message":"Keys cannot be verified at the moment.","errorCode":"UNAVAILABLE"}`,
		"vinfer":     `{"error":{"code":"unavailable","message":"Keys cannot be verified at the moment.","details":{}}}`,
	} {
		p := compiled(t, name)
		now := time.Now()
		v := newVerifier(t, core.Config{})
		if err := v.Activate(newPublisher(t, p, now.Add(-time.Hour)).bundle(now.Add(-time.Minute))); err != nil {
			t.Fatal(err)
		}
		d := v.Verify(&core.Request{TLS: true, Method: "GET", Authority: p.Hosts[0].Name, Path: "/", Headers: panics{}})
		if d.Reason != policy.Internal || string(d.Body) != want || d.Policy() != name {
			t.Errorf("%s: %v: %s", name, d, d.Body)
		}
	}
}

// R48, R72: a policy note that narrows kinds or environments is obeyed for keys and
// nodes that were used before, which is what it is for when a publisher's key is stolen.
func TestNarrowedNote(t *testing.T) {
	p := compiled(t, "default")
	now := time.Now()
	signer, publisher := bundletest.NewSigner("policy"), bundletest.NewSigner("publisher")
	trust, err := bundle.NewTrust(p.Name, "edge", 1, signer.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, rec := newKey(t, "key_1")
	open := func(kinds, environments []string, at time.Time) *bundle.Bundle {
		note := bundle.NewPolicyNote(p, p.Name, "edge", at.UnixMilli(), []string{publisher.Key})
		note.Kinds, note.Environments = kinds, environments
		signed, err := bundle.SignPolicyNote(note, signer)
		if err != nil {
			t.Fatal(err)
		}
		publication, err := bundle.Republish(signed, p.Encode(), trust)
		if err != nil {
			t.Fatal(err)
		}
		out, err := publication.Sign([]bundle.Record{rec}, at.UnixMilli()+1, bundle.DefaultLife, publisher)
		if err != nil {
			t.Fatal(err)
		}
		b, err := out.Open(trust)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	kinds, environments := []string{"restricted", "secret"}, []string{"live", "test"}
	for name, narrowed := range map[string]*bundle.Bundle{
		"kinds":        open([]string{"restricted"}, environments, now.Add(-time.Minute)),
		"environments": open(kinds, []string{"test"}, now.Add(-time.Minute)),
	} {
		v := newVerifier(t, core.Config{})
		if err := v.Activate(open(kinds, environments, now.Add(-time.Hour))); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name+", before", v.Verify(request(key)), policy.OK)
		v.Wait()
		if err := v.Activate(narrowed); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name+", narrowed", v.Verify(request(key)), policy.Internal)
		if err := v.Activate(open(kinds, environments, now.Add(-time.Second))); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name+", as before", v.Verify(request(key)), policy.OK)
	}
}

// What a request under way rests on ends with its key.
func TestHold(t *testing.T) {
	p := compiled(t, "default")
	now := time.Now()
	c := &clock{at: now}
	pub := newPublisher(t, p, now.Add(-time.Hour))
	key, rec := newKey(t, "key_1")
	rec.Expires = now.Add(time.Hour).Unix()
	v := newVerifier(t, core.Config{Now: c.now})
	version := now.Add(-time.Minute)
	publish := func(records ...bundle.Record) {
		version = version.Add(time.Second)
		if err := v.Activate(pub.bundle(version, records...)); err != nil {
			t.Fatal(err)
		}
	}
	publish(rec)
	d := v.Verify(request(key))
	hold, ok := d.Hold()
	if !ok || !v.Holds(&hold) {
		t.Fatal("a good key does not hold")
	}
	for _, tt := range []struct {
		name   string
		change func()
		want   bool
	}{
		{"deprecated", func() { r := rec; r.Status = bundle.Deprecated; publish(r) }, true},
		{"expired", func() { c.set(now.Add(time.Hour)) }, false},
		{"clock back", func() { c.set(now) }, true},
		{"shortened", func() { r := rec; r.Expires = now.Unix(); publish(r) }, false},
		{"prolonged", func() { r := rec; r.Expires = now.Add(2 * time.Hour).Unix(); publish(r) }, true},
		{"after the old end", func() { c.set(now.Add(90 * time.Minute)) }, true},
		{"clock back again", func() { c.set(now) }, true},
		{"revoked", func() { r := rec; r.Status = bundle.Revoked; publish(r) }, false},
		{"back", func() { publish(rec) }, true},
		{"gone", func() { publish() }, false},
		{"unreadable", func() { pub.nodes = &bundle.Nodes{}; publish(rec) }, true},
	} {
		tt.change()
		if got := v.Holds(&hold); got != tt.want {
			t.Errorf("%s: holds %v", tt.name, got)
		}
	}
	denied := v.Verify(request(key + "x"))
	if _, ok := denied.Hold(); ok || denied.Outcome == core.Allow {
		t.Errorf("a denied request holds: %v", denied)
	}
}

// What follows the body of a public route goes on.
func TestTrailerOfAPublicRoute(t *testing.T) {
	document := strings.Replace(defaultPolicy(t), "routes:\n", "routes:\n  - name: open\n    path: /open\n    public: true\n", 1)
	v, _ := verifierWith(t, document, "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
	d := v.Verify(&core.Request{TLS: true, Method: "POST", Authority: "api.test", Path: "/open", Headers: core.Lines{}})
	if d.Outcome != core.Allow || !d.Trailer("X-Sum", "1") {
		t.Error("a public route's trailer is lost", d)
	}
}

// R59: an end that is taken away ends nothing.
func TestHoldWithoutEnd(t *testing.T) {
	p := compiled(t, "default")
	now := time.Now()
	c := &clock{at: now}
	pub := newPublisher(t, p, now.Add(-time.Hour))
	key, rec := newKey(t, "key_1")
	rec.Expires = now.Add(time.Hour).Unix()
	v := newVerifier(t, core.Config{Now: c.now})
	if err := v.Activate(pub.bundle(now.Add(-2*time.Minute), rec)); err != nil {
		t.Fatal(err)
	}
	d := v.Verify(request(key))
	hold, _ := d.Hold()
	rec.Expires = 0
	if err := v.Activate(pub.bundle(now.Add(-time.Minute), rec)); err != nil {
		t.Fatal(err)
	}
	c.set(now.Add(2 * time.Hour))
	if !v.Holds(&hold) {
		t.Error("a key whose end was taken away ends all the same")
	}
}

// R24: a Host line beside the authority says the same host, in whatever spelling of it,
// or the request is refused: every one of several, and one that is no host, too.
func TestHostLines(t *testing.T) {
	for _, hosts := range []string{"", "{hosts: [api.test]}"} {
		v, key := verifierWith(t, `name: x
sources: [{header: X-Key}]
kinds: {secret: {prefix: sk}}
environments: {live: `+hosts+`}
routes:
  - {name: all, path: "/{rest...}"}
`, "sk", bundle.Record{KeyID: "key_1", Kind: "secret"})
		for _, tt := range []struct {
			lines []string
			want  policy.Reason
		}{
			{nil, policy.OK}, {[]string{"api.test"}, policy.OK}, {[]string{"API.test.:443"}, policy.OK}, {[]string{"api.test", "api.test"}, policy.OK},
			{[]string{"other.test"}, policy.Malformed}, {[]string{"api.test", "other.test"}, policy.Malformed}, {[]string{"other.test", "api.test"}, policy.Malformed},
			{[]string{"api.test:8443"}, policy.Malformed}, {[]string{""}, policy.Malformed}, {[]string{"a b"}, policy.Malformed},
			{[]string{"api.test, other.test"}, policy.Malformed}, {[]string{"user@api.test"}, policy.Malformed},
		} {
			lines := core.Lines{{Name: "X-Key", Value: key}}
			for _, l := range tt.lines {
				lines = append(lines, core.Header{Name: "Host", Value: l})
			}
			d := v.Verify(&core.Request{TLS: true, Method: "GET", Authority: "api.test", Path: "/x", Headers: lines})
			if d.Reason != tt.want {
				t.Errorf("hosts %q, Host lines %q: %s, not %s", hosts, tt.lines, d.Reason, tt.want)
			}
		}
	}
}
