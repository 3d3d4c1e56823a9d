package core_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/policies"
)

// agrees sees that e explains d: its last step ended the decision, by a comparison that
// does not hold where it is a denial. None of the secrets is shown.
func agrees(t *testing.T, e core.Explanation, d core.Decision, secrets ...string) {
	t.Helper()
	last := e.Steps[len(e.Steps)-1]
	if e.Decision.Outcome != d.Outcome || e.Decision.Reason != d.Reason || e.Decision.Status != d.Status || string(e.Decision.Body) != string(d.Body) ||
		fmt.Sprint(e.Decision.Set) != fmt.Sprint(d.Set) || e.Decision.RequiredScope != d.RequiredScope || last.Reason != d.Reason {
		t.Errorf("explained as %v, at the step %s with %s; decided as %v", e.Decision, last.Name, last.Reason, d)
	}
	for i, step := range e.Steps {
		for j, c := range step.Compared {
			ended := d.Reason != policy.OK && i == len(e.Steps)-1 && j == len(step.Compared)-1
			if c.Holds == ended {
				t.Errorf("%s: %q holds: %v, and the reason is %s", step.Name, c.What, c.Holds, d.Reason)
			}
			for _, secret := range secrets {
				if len(secret) >= 20 && strings.Contains(c.What, secret) {
					t.Errorf("%s: a key is shown", step.Name) // R74
				}
			}
		}
	}
}

// Whatever is asked, the explanation is the decision, for a key's text and for its
// record alike. Requests are put together from what decides, good and bad.
func TestExplainAgrees(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{TLSTerminators: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	key, rec := newKey(t, "key_1")
	limited, limits := newKey(t, "key_2")
	if err := limits.Restrict([]string{"192.0.2.0/24"}, []string{"https://shop.test"}, []string{"GET /x"}); err != nil {
		t.Fatal(err)
	}
	revoked, ended := newKey(t, "key_3")
	ended.Status = bundle.Revoked
	unknown, _ := newKey(t, "key_4")
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec, limits, ended)); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	one := func(from ...string) string { return from[random.IntN(len(from))] }
	reasons := make(map[policy.Reason]int)
	for range 20_000 {
		used := one(key, key, limited, revoked, unknown, key[:len(key)-1]+"-", "sk_live_short")
		r := request(used)
		lines := r.Headers.(core.Lines)
		r.TLS, r.EarlyData, r.Rewritten = random.IntN(20) > 0, random.IntN(50) == 0, random.IntN(50) == 0
		r.Peer = netip.MustParseAddr(one("10.0.0.1", "192.0.2.1"))
		r.ClientIP = func() netip.Addr { return netip.MustParseAddr(one("192.0.2.7", "192.0.2.7", "198.51.100.1")) }
		if random.IntN(10) == 0 {
			r.ClientIP = nil
		}
		r.Method = one("GET", "GET", "GET", "HEAD", "POST", "BREW", used)
		r.Authority = one("api.test", "api.test", "api.test", "API.test:8443", "a,b", used+".test")
		r.SNI = one("", "", "", "api.test", "other.test")
		r.Path = one("/x", "/x", "/x", "/x", "/X/", "/a//b", "/"+used, "/"+key, "/%73"+key[1:])
		r.Query = one("", "", "", "a=b", "a=#", "key="+key)
		for _, more := range [][2]string{
			{"Cookie", "a=b"}, {"Cookie", "k=" + key}, {"Host", "api.test"}, {"Host", used}, {"X-HTTP-Method-Override", "DELETE"}, {"Upgrade", "websocket"},
			{"Origin", "https://shop.test"}, {"Referer", "https://shop.test/" + used}, {"Authorization", "Bearer " + key}, {"X-Note", used}, {"X-Forwarded-Uri", used}, {"Early-Data", "1"},
		} {
			if random.IntN(12) == 0 || more[0] == "Origin" && random.IntN(2) == 0 {
				lines = append(lines, core.Header{Name: more[0], Value: more[1]})
			}
		}
		r.Headers = lines
		at := r.ClientIP
		if at != nil { // the same address for both
			address := at()
			r.ClientIP = func() netip.Addr { return address }
		}
		d := v.Verify(r)
		reasons[d.Reason]++
		agrees(t, v.Explain(r), d, key, limited, revoked, unknown)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if len(reasons) < 15 || reasons[policy.OK] < 100 {
		t.Errorf("seed %d shows little: %v", seed, reasons)
	}
}

// A key whose text is not at hand is decided as if it had been sent.
func TestExplainKey(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	if e := v.Explain(request("")); e.Decision.Reason != policy.NoBundle || len(e.Steps) != 2 || e.Show("any text") == "any text" { // nothing says what a key looks like
		t.Errorf("without a bundle: %v, %v", e.Decision, e.Steps)
	}
	var records []bundle.Record
	var keys []string
	for i, change := range []func(*bundle.Record){
		func(*bundle.Record) {},
		func(r *bundle.Record) { r.Status = bundle.Revoked },
		func(r *bundle.Record) { r.Expires = now.Unix() - 1 },
		func(r *bundle.Record) { r.Restrict([]string{"198.51.100.0/24"}, nil, nil) },
	} {
		key, rec := newKey(t, fmt.Sprintf("key_%d", i))
		change(&rec)
		keys, records = append(keys, key), append(records, rec)
	}
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, records...)); err != nil {
		t.Fatal(err)
	}
	without := request("")
	without.Headers = core.Lines{{Name: "Accept", Value: "*/*"}}
	for i := range records {
		e, err := v.ExplainKey(without, &records[i])
		if err != nil {
			t.Fatal(err)
		}
		d := v.Verify(request(keys[i]))
		agrees(t, e, d)
		if e.Decision.Key == nil || e.Decision.Key.ID != records[i].KeyID {
			t.Errorf("key %d is explained as %v", i, e.Decision)
		}
	}
	if d := v.Verify(without); d.Reason != policy.Missing {
		t.Errorf("the key of an explanation is used for a request without one: %v", d)
	}
	stranger := records[0]
	stranger.Kind = "stranger"
	if _, err := v.ExplainKey(without, &stranger); err == nil {
		t.Error("a kind that the policy does not have is explained")
	}
}

// What breaks a decision is a denial when it is explained, too, whichever step it breaks.
func TestExplainPanics(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	if err := rec.Restrict([]string{"192.0.2.0/24"}, nil, nil); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	noLines, noAddress := request(key), request(key)
	noLines.Headers = panics{}
	noAddress.ClientIP = func() netip.Addr { panic("broken host") }
	for step, r := range map[string]*core.Request{"transport": noLines, "permission": noAddress} {
		e := v.Explain(r)
		agrees(t, e, v.Verify(r))
		if last := e.Steps[len(e.Steps)-1]; last.Name != step || last.Reason != policy.Internal || e.Show(key) == key {
			t.Errorf("%s: it ended at the step %s with %s", step, last.Name, last.Reason)
		}
	}
}

// R74: what a line of the request holds of credentials is not shown where it stands
// elsewhere too, and what is shown of a request is no longer than a line.
func TestExplainShowsNoCredential(t *testing.T) {
	document, err := policies.Policy("vesuviopay")
	if err != nil {
		t.Fatal(err)
	}
	p, err := compile.Compile("policy.yaml", []byte(strings.Replace(string(document), "header: Authorization\n  scheme: Bearer", "header: X-Customer", 1)), noOptions)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, p, now).bundle(now)); err != nil {
		t.Fatal(err)
	}
	const secret = "opaque-1234567890"
	for name, tt := range map[string]struct {
		line  core.Header
		shown bool
	}{
		"cookie":                    {core.Header{Name: "Cookie", Value: "a=b; sid=" + secret}, false},
		"authorization":             {core.Header{Name: "Authorization", Value: secret}, false},
		"authorization by a scheme": {core.Header{Name: "Authorization", Value: "Basic " + secret}, false},
		"proxy authorization":       {core.Header{Name: "Proxy-Authorization", Value: "Bearer " + secret}, false},
		"the policy's source":       {core.Header{Name: "X-API-Key", Value: secret}, false},
		"the customer token":        {core.Header{Name: "X-Customer", Value: secret}, false},
		"another line":              {core.Header{Name: "X-Note", Value: secret}, true},
	} {
		r := request("")
		r.Path, r.Headers = "/"+secret, core.Lines{tt.line}
		e := v.Explain(r)
		if text := fmt.Sprint(e.Steps); strings.Contains(text, secret) != tt.shown || (e.Show(secret) == secret) != tt.shown {
			t.Errorf("%s: %s", name, text)
		}
	}
	r := request("")
	r.Path = "//" + strings.Repeat("x", 10_000)
	for _, step := range v.Explain(r).Steps {
		for _, c := range step.Compared {
			if len(c.What) > 500 {
				t.Errorf("%s: %d bytes", step.Name, len(c.What))
			}
		}
	}
}

// Where a path has a route for other methods, they are named.
func TestExplainNamesOtherMethods(t *testing.T) {
	p, err := compile.Compile("policy.yaml", []byte("name: notes\nsources: [{header: X-Notes-Key}]\nkinds: {app: {prefix: nk}}\nenvironments: {live: }\nroutes: [{name: notes, path: /x, methods: [PUT, DELETE]}]\n"), noOptions)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, p, now).bundle(now)); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(v.Explain(request("")).Steps); !strings.Contains(text, "there is one for PUT, DELETE") {
		t.Error(text)
	}
}

// R74: what is shown of a request has no key in it, however that is encoded, nor a
// customer token, though no line of the request has them.
func TestExplainShows(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"base64":                base64.StdEncoding.EncodeToString([]byte(key)),
		"hexadecimal":           hex.EncodeToString([]byte(key)),
		"percent-encoded twice": strings.ReplaceAll(key, "_", "%255f"),
		"another kind's":        "xk_live_abc",
		"another, escaped":      "xk%5flive%5Fabc",
		"a customer token":      "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl",
	} {
		r := request("")
		r.Headers, r.Path = core.Lines{}, "/v1/"+secret
		e := v.Explain(r)
		for _, s := range e.Steps {
			for _, c := range s.Compared {
				if strings.Contains(c.What, secret) {
					t.Errorf("%s: %s", name, c.What)
				}
			}
		}
		if e.Show(r.Path) == r.Path || e.Show("/v1/payments") != "/v1/payments" {
			t.Errorf("%s: %s is shown, or nothing is", name, r.Path)
		}
	}
}
