package redact_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/core/redact"
	"github.com/keystile/keystile/policies"
)

func newKey(t testing.TB, prefix, environment string) string {
	t.Helper()
	secret, err := credential.Generate(prefix, environment)
	if err != nil {
		t.Fatal(err)
	}
	return secret.Reveal()
}

func rulesOf(t testing.TB, name string) *redact.Rules {
	t.Helper()
	document, err := policies.Policy(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := compile.Compile("policy.yaml", document, compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return redact.Default.With(p)
}

// percent encodes every byte.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// encodings are the forms of a secret that are found.
var encodings = map[string]func(string) string{
	"as it is":                func(s string) string { return s },
	"percent-encoded":         percent,
	"its underscores encoded": func(s string) string { return strings.ReplaceAll(s, "_", "%5f") },
	"twice percent-encoded":   func(s string) string { return url.QueryEscape(percent(s)) },
	"base64":                  func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64, 1 before":        func(s string) string { return base64.StdEncoding.EncodeToString([]byte("u" + s)) },
	"base64, 2 before":        func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("u:" + s + ":p")) },
	"base64url":               func(s string) string { return base64.URLEncoding.EncodeToString([]byte("\xff\xfe\xfd" + s + "?>")) },
	"base64 behind a word":    func(s string) string { return "token-" + base64.RawURLEncoding.EncodeToString([]byte(s)) },
	"base64, percent-encoded": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(s + "?"))) },
	"hex":                     func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":                     func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"hex behind a digit":      func(s string) string { return "0" + hex.EncodeToString([]byte(s)) },
}

// places are where a secret may stand.
var places = []string{"%s", "a %s b", `{"uri": "/v1/x?key=%s&y=1"}`, "/%s/y", "key:%s,", "'%s'", "ä%sä"}

// R74: a secret is found wherever it stands, however it is encoded, and what is around
// it stays.
func TestText(t *testing.T) {
	known := rulesOf(t, "vinr")
	key := newKey(t, "sk", "live")
	const token = "eyJhbGciOiJSUzI1NiIsImtpZCI6Im9uZSJ9.eyJzdWIiOiJhbGljZSIsImlzcyI6Imh0dHBzOi8vc2hvcC5leGFtcGxlIn0.c2lnbmF0dXJlLXRoYXQtaXMtbG9uZw"
	for name, tt := range map[string]struct {
		rules  *redact.Rules
		secret string
	}{
		"a key":                        {redact.Default, key},
		"a key of another policy":      {redact.Default, newKey(t, "vk", "sandbox")},
		"a key that lacks its end":     {redact.Default, key[:len(key)-4]},
		"a key with a bad checksum":    {redact.Default, key[:len(key)-2] + "00"},
		"a key with more behind":       {redact.Default, key + "abc"},
		"a key behind a word":          {redact.Default, "x" + key},
		"a known key's beginning":      {known, key[:20]},
		"a known key in lower case":    {known, strings.ToLower(key)},
		"a known key in upper case":    {known, strings.ToUpper(key)},
		"a known key with a hyphen":    {known, key[:20] + "-" + key[20:]},
		"a known key, _ in its body":   {known, key[:20] + "_" + key[20:]},
		"a customer token":             {redact.Default, token},
		"a customer token, cut":        {redact.Default, token[:len(token)-20]},
		"a private key of an odd name": {redact.Default, "PRIVATE+KEY+a~~~b~~~c+5d1b1d6d+AQ0aGbk2mN/4t+x0Yw=="},
		"a private key in lower case":  {redact.Default, "private+key+keystile-vinr+5d1b1d6d+aq0agbk2mn/4t+x0yw=="},
		"a private key":                {redact.Default, "PRIVATE+KEY+keystile-vinr+5d1b1d6d+AQ0aGbk2mN/4t+x0Yw=="},
	} {
		for how, encode := range encodings {
			for _, place := range places {
				in := fmt.Sprintf(place, encode(tt.secret))
				out := tt.rules.Text(in)
				before, after, _ := strings.Cut(place, "%s")
				if strings.HasPrefix(name, "a private key") || strings.HasPrefix(how, "base64") || strings.HasSuffix(how, "digit") { // what was encoded with it stays, or goes
					before, after = strings.TrimRight(before, "=/"), strings.TrimLeft(after, "/y")
				}
				if !strings.HasPrefix(out, before) || !strings.HasSuffix(out, after) || !strings.Contains(out, redact.Mark) || len(out) > len(in)-len(encode(tt.secret))+40 {
					t.Errorf("%s, %s: %s became %s", name, how, in, out)
				}
			}
		}
	}
	two := "x " + key + " y " + key + " z"
	if got := known.Text(two); got != "x REDACTED y REDACTED z" {
		t.Errorf("two keys: %s", got)
	}
	if got := known.Text(key + key); got != redact.Mark {
		t.Errorf("two keys without anything between: %s", got)
	}
	for what, first := range map[string]string{"private key": "PRIVATE+KEY+a+5d1b1d6d+AQ0aGbk2mN/4t+x0Yw==", "percent-encoded key": percent(key), "base64": base64.RawStdEncoding.EncodeToString([]byte(key))} {
		if got := known.Text(first + " and " + key); got != "REDACTED and REDACTED" {
			t.Errorf("%s before a key: %s", what, got) // it is found later, and stands before
		}
	}
	if got := known.Text(base64.RawStdEncoding.EncodeToString([]byte(key))); got != redact.Mark {
		t.Errorf("the last digits stay: %s", got)
	}
}

// What is no secret is not touched, and costs no memory.
func TestTextStays(t *testing.T) {
	const body = "0123456789abcdefghijABCDEFGHIJ01234567"
	rules := rulesOf(t, "vinr")
	for _, s := range []string{
		"", "GET", "/v1/payments?limit=10", "caddy_http_requests_in_flight", "http.log.access.log0",
		"github.com/caddyserver/caddy/v2/modules/caddyhttp.(*Server).ServeHTTP",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
		"key_2NfYwE0w3oYkqz1mXqUuKd", "0123456789abcdef0123456789abcdef",
		"sk_live_", "go_memstats_alloc_bytes_total", "some_name_thatisverylongandwithoutanydigit",
		"eyJ", "eyJhbGciOiJSUzI1NiJ9", "keyJump.go:17", "eyJhbGciOiJSUzI1NiJ9.x.y", "survEyJS.module.js",
		"a__" + body, "a-live_" + body, "/_live_" + body, "HTTP_ID_" + body, // without kind or environment
		"dial tcp 127.0.0.1:9000: connect: connection refused", "PRIVATE KEY", "the key is PRIVATE+", "the key is PRIVATE+KEY", "100%", "%zz%4", "_", "__",
	} {
		if got := rules.Text(s); got != s {
			t.Errorf("%s became %s", s, got)
		}
		if strings.Contains(s, "%") {
			continue
		}
		if n := testing.AllocsPerRun(10, func() { rules.Text(s) }); n > 0 {
			t.Errorf("%s costs %v allocations", s, n)
		}
	}
}

// Headers that carry credentials are known by all their aliases (R36), and by what the
// policies name.
func TestHides(t *testing.T) {
	vinr, enterprise := rulesOf(t, "vinr"), rulesOf(t, "enterprise")
	for name, tt := range map[string]struct {
		rules *redact.Rules
		want  bool
	}{
		"Authorization": {redact.Default, true}, "proxy_authorization": {redact.Default, true}, "Cookie": {redact.Default, true},
		"set-cookie": {redact.Default, true}, "X-Api-Key": {redact.Default, true}, "x.api.key": {redact.Default, true},
		"X-Api-Keys": {vinr, false}, "User-Agent": {vinr, false}, "": {vinr, false}, "X-Ap\u0131-Key": {vinr, false},
		"X_API_KEY": {enterprise, true},
	} {
		if got := tt.rules.Hides(name); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, change := range map[string][2]string{
		"default":    {"sources:", "sources:\n  - {header: X-Shop-Key}"},
		"vesuviopay": {"header: Authorization", "header: X-Shop-Key"}, // of the customer token
	} {
		document := []byte(strings.Replace(string(mustPolicy(t, name)), change[0], change[1], 1))
		p, err := compile.Compile("policy.yaml", document, compile.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		if redact.Default.Hides("X-Shop-Key") || !redact.Default.With(p).Hides("x_shop_key") {
			t.Errorf("X-Shop-Key is not hidden by the policy of %s alone", name)
		}
	}
}

// Rules are immutable: those that learned from the same ones do not know each other's.
func TestRulesApart(t *testing.T) {
	base := redact.Default
	for i := range 5 { // whatever room is left behind the lists
		learned := func(what string) *redact.Rules {
			return base.With(&policy.Policy{
				Sources: []credential.Source{{Header: fmt.Sprintf("x-%s-%d", what, i)}},
				Kinds:   []policy.Kind{{Prefix: fmt.Sprintf("%s%d", what, i)}}, Environments: []string{"live"},
			})
		}
		a, b := learned("a"), learned("b")
		for what, tt := range map[string][2]*redact.Rules{"a": {a, b}, "b": {b, a}} {
			header, key := fmt.Sprintf("X-%s-%d", what, i), fmt.Sprintf("%s%d_live_short123", what, i)
			if !tt[0].Hides(header) || tt[0].Text("a "+key) != "a REDACTED" || tt[1].Hides(header) || tt[1].Text("a "+key) != "a "+key {
				t.Errorf("%s is not known, or to the other rules too", header)
			}
		}
		base = a
	}
}

func mustPolicy(t *testing.T, name string) []byte {
	t.Helper()
	document, err := policies.Policy(name)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// No text is too odd.
func FuzzText(f *testing.F) {
	rules := rulesOf(f, "vinr")
	key := newKey(f, "sk", "live")
	f.Add("")
	f.Add("%")
	f.Add("%5f%5F%255f_a_")
	f.Add("PRIVATE+KEY+")
	f.Fuzz(func(t *testing.T, s string) {
		if out := rules.Text(s + " " + key + " " + s); strings.Contains(out, key) {
			t.Errorf("%q holds the key", out)
		}
	})
}
