package core_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
)

// fieldsOf are the fields of a denial's log line, by their names.
func fieldsOf(t *testing.T, v *core.Verifier, r *core.Request) map[string]string {
	t.Helper()
	d := v.Verify(r)
	if d.Outcome != core.Deny {
		t.Fatal("the request is not denied")
	}
	fields := make(map[string]string)
	for _, f := range d.Fields(r) {
		if _, twice := fields[f.Name]; twice || f.Value == "" {
			t.Errorf("the field %s is empty, or there twice", f.Name)
		}
		fields[f.Name] = f.Value
	}
	return fields
}

// asAPIKey are the lines of r with the key in X-Api-Key.
func asAPIKey(r *core.Request) core.Lines {
	return core.Lines{{Name: "X-Api-Key", Value: strings.TrimPrefix(r.Headers.Lines()[0].Value, "Bearer ")}}
}

// The line of a denial names method, host and path, and what was allowed.
func TestFieldsOfADenial(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		policy string
		change func(*core.Request, *bundle.Record)
		want   map[string]string
	}{
		"another host": {"vinr", func(r *core.Request, _ *bundle.Record) { r.Authority = "other.vinr.com:8443" },
			map[string]string{"reason": "misdirected", "method": "GET", "host": "other.vinr.com:8443", "path": "/v1/payments", "allowed": "api.vinr.com, sandbox.api.vinr.com"}},
		"another server name": {"vinr", func(r *core.Request, _ *bundle.Record) { r.SNI = "sandbox.api.vinr.com" },
			map[string]string{"reason": "misdirected", "server_name": "sandbox.api.vinr.com"}},
		"no key": {"vinr", func(r *core.Request, _ *bundle.Record) { r.Headers = core.Lines{} },
			map[string]string{"reason": "missing", "allowed": "Authorization: Bearer, X-Api-Key"}},
		"another environment": {"vinr", func(r *core.Request, _ *bundle.Record) {
			r.Authority, r.SNI = "sandbox.api.vinr.com", "sandbox.api.vinr.com"
		}, map[string]string{"reason": "wrong_environment", "key_id": "key_1", "allowed": "test", "server_name": "", "policy": "vinr", "error": ""}},
		"no scope": {"vinr", func(_ *core.Request, rec *bundle.Record) { rec.Kind = "restricted" },
			map[string]string{"reason": "scope", "required_scope": "payments:read", "allowed": ""}},
		"another kind": {"vesuviopay", func(r *core.Request, rec *bundle.Record) {
			r.Path, r.Headers = "/api/v1/customers/1", asAPIKey(r)
			rec.Kind, rec.Tenant = "publishable", "store_1"
		}, map[string]string{"reason": "kind", "allowed": "secret"}},
		"another kind, no route": {"vinr", func(r *core.Request, rec *bundle.Record) { r.Path, rec.Kind = "/elsewhere", "publishable" },
			map[string]string{"reason": "kind", "allowed": "secret, restricted", "route": ""}},
		"another tenant": {"vesuviopay", func(r *core.Request, rec *bundle.Record) {
			r.Path, r.Headers, rec.Tenant = "/api/v1/sdk/stores/store_2", asAPIKey(r), "store_1"
		}, map[string]string{"reason": "tenant", "allowed": "store_1", "route": "store", "policy": "vesuviopay"}},
		"no customer token": {"vesuviopay", func(r *core.Request, rec *bundle.Record) {
			r.Path, r.Headers, rec.Tenant = "/api/v1/sdk/cart/store_1", asAPIKey(r), "store_1"
		}, map[string]string{"reason": "token_missing", "allowed": "Authorization: Bearer"}},
		"no route": {"vinr", func(r *core.Request, _ *bundle.Record) { r.Path = "/elsewhere" },
			map[string]string{"reason": "no_route", "path": "/elsewhere"}},
		"an address": {"example", func(r *core.Request, rec *bundle.Record) {
			rec.Prefixes = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}, map[string]string{"reason": "ip", "allowed": "192.0.2.0/24"}},
		"an endpoint": {"example", func(r *core.Request, rec *bundle.Record) { rec.Endpoints = []string{"POST /v1/x"} },
			map[string]string{"reason": "endpoint", "allowed": "POST /v1/x"}},
		"many endpoints": {"example", func(r *core.Request, rec *bundle.Record) {
			for i := range 30 {
				rec.Endpoints = append(rec.Endpoints, fmt.Sprintf("POST /v1/%02d", i))
			}
		}, map[string]string{"reason": "endpoint", "allowed": "POST /v1/00, POST /v1/01, POST /v1/02, POST /v1/03, POST /v1/04, POST /v1/05, POST /v1/06, POST /v1/07, " +
			"POST /v1/08, POST /v1/09, POST /v1/10, POST /v1/11, POST /v1/12, POST /v1/13, POST /v1/14, POST /v1/15, …"}},
		"what went wrong inside": {"vinr", func(r *core.Request, _ *bundle.Record) { r.Rewritten = true },
			map[string]string{"reason": "internal", "error": "the request was rewritten before keystile saw it: in a Caddyfile, put both into `route { … }` with keystile first, or set the global option `order keystile first`; set `rewritten` if the policy speaks of the new path"}},
		"a referrer": {"example", func(r *core.Request, rec *bundle.Record) { rec.Referrers = []string{"https://a.test"} },
			map[string]string{"reason": "referrer", "allowed": "https://a.test"}},
		"what is not text": {"vinr", func(r *core.Request, _ *bundle.Record) {
			r.Path = "/v1/\x1b[31m\u202e\n" + strings.Repeat("\xff", 4000)
		},
			map[string]string{"reason": "malformed"}},
	} {
		t.Run(name, func(t *testing.T) {
			secret, rec := newKey(t, "key_1")
			if prefix := map[string]string{"no scope": "rk", "another kind": "pk", "another kind, no route": "pk"}[name]; prefix != "" {
				s, err := credential.Generate(prefix, "live")
				if err != nil {
					t.Fatal(err)
				}
				secret, rec.Digest = s.Reveal(), s.Digest()
			}
			r := &core.Request{TLS: true, Method: "GET", Authority: map[string]string{"vinr": "api.vinr.com", "example": "api.example.com", "vesuviopay": "api.vesuviopay.com"}[tt.policy], Path: "/v1/payments",
				Query: "q=hidden", Headers: core.Lines{{Name: "Authorization", Value: "Bearer " + secret}}}
			tt.change(r, &rec)
			v := newVerifier(t, core.Config{})
			if err := v.Activate(newPublisher(t, compiled(t, tt.policy), now).bundle(now, rec)); err != nil {
				t.Fatal(err)
			}
			got := fieldsOf(t, v, r)
			for field, want := range tt.want {
				if got[field] != want {
					t.Errorf("%s is %q, not %q", field, got[field], want)
				}
			}
			for field, value := range got {
				if len(value) > 600 || !utf8.ValidString(value) || strings.ContainsAny(value, "\x1b\n\u202e") || strings.Contains(value, "hidden") {
					t.Errorf("%s is %q", field, value)
				}
			}
		})
	}
}

// R74: no field of a denial holds an API key, however the client spells it and whatever
// the reason is; nor where no policy says what a key looks like.
func TestFieldsHoldNoKey(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	with, without := newVerifier(t, core.Config{}), newVerifier(t, core.Config{})
	if err := with.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	body := key[strings.LastIndexByte(key, '_')+1:]
	// The body is looked for below, and so stays as it is.
	encoded := strings.NewReplacer("_", "%5f", "s", "%73").Replace(strings.TrimSuffix(key, body)) + body
	for _, v := range []*core.Verifier{with, without} {
		for name, spelled := range map[string]string{
			"as it is": key, "with more behind": key + "x", "cut": key[:len(key)-1], "in upper case": strings.ToUpper(key), "encoded": encoded,
			"twice": strings.ReplaceAll(encoded, "%", "%25"), "thrice": strings.ReplaceAll(encoded, "%", "%2525"), "deeply": strings.ReplaceAll(encoded, "%", "%"+strings.Repeat("25", 20)),
		} {
			for where, change := range map[string]func(*core.Request){
				"path":             func(r *core.Request) { r.Path = "/v1/" + spelled },
				"path, plain HTTP": func(r *core.Request) { r.Path, r.TLS = "/v1/"+spelled, false },
				"path, early data": func(r *core.Request) { r.Path, r.EarlyData = "/v1/"+spelled, true },
				"path, rewritten":  func(r *core.Request) { r.Path, r.Rewritten = "/v1/"+spelled, true },
				"path, malformed":  func(r *core.Request) { r.Path = "//" + spelled },
				"method":           func(r *core.Request) { r.Method = spelled },
				"host":             func(r *core.Request) { r.Authority = spelled + ".test" },
				"server name":      func(r *core.Request) { r.SNI = spelled },
				"path, two keys": func(r *core.Request) {
					line := core.Header{Name: "Authorization", Value: "Bearer " + key}
					r.Path, r.Headers = "/"+spelled, core.Lines{line, line}
				},
			} {
				r := &core.Request{TLS: true, Method: "GET", Authority: "api.test", Path: "/x", Headers: core.Lines{}}
				change(r)
				for field, value := range fieldsOf(t, v, r) {
					if strings.Contains(strings.ToUpper(value), strings.ToUpper(body[:30])) {
						t.Errorf("%s, %s: the field %s holds a key", where, name, field)
					}
				}
			}
		}
	}
}

// Without a bundle nothing says what a key looks like: the method is shown, if everybody
// knows it, and nothing else.
func TestFieldsWithoutABundle(t *testing.T) {
	r := request("")
	got := fieldsOf(t, newVerifier(t, core.Config{}), r)
	if got["reason"] != "no_bundle" || got["method"] != "GET" || got["path"] != core.LeftOut || got["host"] != core.LeftOut {
		t.Errorf("%q", got)
	}
}

// A host that asks for it has an ID for each request, also on a public route and for a
// preflight, and then a client's Request-Id does not go on, under any spelling.
func TestRequestID(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, asked := range []bool{true, false} {
		for range 3 {
			r := request(key)
			r.WithID = asked
			d := v.Verify(r)
			if d.Reason != policy.OK || (len(d.RequestID) >= 20) != asked || seen[d.RequestID] && asked {
				t.Errorf("asked %v: %s, %q", asked, d.Reason, d.RequestID)
			}
			seen[d.RequestID] = true
			for _, name := range []string{"Request-Id", "request_id", "REQUEST~ID"} {
				if _, goesOn := d.Line(name, "forged"); goesOn == asked {
					t.Errorf("asked %v: a client's %s goes on: %v", asked, name, goesOn)
				}
			}
			if to, ok := d.Line("X-Request-Id", "x"); !ok || to != "x" {
				t.Error("X-Request-Id does not go on")
			}
		}
	}
	r := request("none")
	if d := v.Verify(r); d.RequestID == "" || d.Header[2].Value != d.RequestID {
		t.Error("a denial has no ID")
	}
}
