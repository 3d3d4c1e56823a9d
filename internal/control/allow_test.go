package control

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
)

// What nobody can mean of a new key is refused, with the mend; what is near it is not.
func TestMistaken(t *testing.T) {
	h := open(t, t.TempDir())
	bundles := make(map[string]*Bundle)
	for _, name := range []string{"default", "vinr", "enterprise"} {
		bundles[name] = initBundle(t, h, name)
	}
	at := func(d time.Duration) *time.Time {
		end := time.Now().Add(d)
		return &end
	}
	key, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	secret := NewKey{Kind: "secret", Environment: "live"}
	for name, tt := range map[string]struct {
		policy string
		change func(*NewKey)
		want   string // in the error; "" for a key that is made
	}{
		"nothing":                  {"default", func(*NewKey) {}, ""},
		"star":                     {"default", func(n *NewKey) { n.Endpoints = []string{"/v1/*"} }, "a star is a star in a path"},
		"colon":                    {"default", func(n *NewKey) { n.Endpoints = []string{"GET /v1/:id"} }, "write {id} for one segment"},
		"colon within a segment":   {"default", func(n *NewKey) { n.Endpoints = []string{"POST /v1/things:batch"} }, ""},
		"star in a segment":        {"default", func(n *NewKey) { n.Endpoints = []string{"GET /v1/a*b/c"} }, "{rest...}"},
		"rest":                     {"default", func(n *NewKey) { n.Endpoints = []string{"GET /v1/{rest...}", "/v2"} }, ""},
		"endpoint on no route":     {"enterprise", func(n *NewKey) { n.Scopes, n.Endpoints = []string{"clients:read"}, []string{"/v2/{rest...}"} }, "is on no route"},
		"endpoint on a route":      {"enterprise", func(n *NewKey) { n.Scopes, n.Endpoints = []string{"clients:read"}, []string{"/v1/{rest...}"} }, ""},
		"referrer of a suffix":     {"default", func(n *NewKey) { n.Referrers = []string{"https://*.com"} }, "anybody can have a name below com"},
		"referrer of two labels":   {"default", func(n *NewKey) { n.Referrers = []string{"https://a.example", "https://*.CO.uk:8443"} }, "anybody can have a name below co.uk"},
		"referrer of a host":       {"default", func(n *NewKey) { n.Referrers = []string{"https://*.github.io"} }, "anybody"},
		"referrer of a network":    {"default", func(n *NewKey) { n.Referrers = []string{"http://*.internal"} }, "anybody"},
		"referrer of a site":       {"default", func(n *NewKey) { n.Referrers = []string{"https://*.example.com", "https://com"} }, ""},
		"everyone":                 {"default", func(n *NewKey) { n.IPs = []string{"192.0.2.1", "0.0.0.0/0"} }, "is every address"},
		"everyone of IPv6":         {"default", func(n *NewKey) { n.IPs = []string{"::/0"} }, "is every address"},
		"everyone in mapped form":  {"default", func(n *NewKey) { n.IPs = []string{"::ffff:0.0.0.0/96"} }, "is every address"},
		"nobody":                   {"default", func(n *NewKey) { n.IPs = []string{"0.0.0.0"} }, "is nobody's"},
		"wider than it looks":      {"default", func(n *NewKey) { n.IPs = []string{"10.1.2.3/8"} }, "stands for 10.0.0.0/8"},
		"prefixes":                 {"default", func(n *NewKey) { n.IPs = []string{"10.0.0.0/8", "2001:db8::/32", "::1", "::ffff:192.0.2.0/120"} }, ""},
		"end before the begin":     {"default", func(n *NewKey) { n.NotBefore, n.Expires = at(2*time.Hour), at(time.Hour) }, "it would never work"},
		"end at the begin":         {"default", func(n *NewKey) { n.NotBefore = at(time.Hour); n.Expires = n.NotBefore }, "it would never work"},
		"end after the begin":      {"default", func(n *NewKey) { n.NotBefore, n.Expires = at(time.Hour), at(2*time.Hour) }, ""},
		"end that is past":         {"default", func(n *NewKey) { n.Expires = at(-time.Hour) }, "is past"},
		"no scopes":                {"default", func(n *NewKey) { n.Kind = "restricted" }, "none is given"},
		"no scopes, for one route": {"vinr", func(n *NewKey) { n.Kind = "restricted" }, ""},
		"scope twice":              {"default", func(n *NewKey) { n.Kind, n.Scopes = "restricted", []string{"read", "read"} }, "is given twice"},
		"all scopes and one":       {"default", func(n *NewKey) { n.Kind, n.Scopes, n.AllScopes = "restricted", []string{"read"}, true }, ""},
		"key as a name":            {"default", func(n *NewKey) { n.Name = "the key " + key.Reveal() }, "the name holds an API key"},
		"key as a tenant":          {"default", func(n *NewKey) { n.Tenant = key.Reveal() }, "the tenant holds an API key"},
		"key as a kind":            {"default", func(n *NewKey) { n.Kind = key.Reveal() }, "the kind holds an API key"},
		"name that moves the line": {"default", func(n *NewKey) { n.Name = "a\x1b[2Jb" }, "cannot be shown"},
		"name of two lines":        {"default", func(n *NewKey) { n.Name = "a\nb" }, "cannot be shown"},
		"long name":                {"default", func(n *NewKey) { n.Name = strings.Repeat("x", maxName+1) }, "cannot be shown"},
		"name of any language":     {"default", func(n *NewKey) { n.Name = "Schlüssel für 店 🔑" }, ""},
	} {
		n := secret
		tt.change(&n)
		_, _, err := bundles[tt.policy].Keyring().Create(ctx, n)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), key.Reveal())) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key that was made before such mistakes were refused can be rolled; one end is never
// lengthened by a roll, and the other is what was asked for.
func TestRollKeeps(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	old, secret, err := b.Keyring().newKey(NewKey{Kind: "secret", Environment: "live", Endpoints: []string{"/v1/*"}, IPs: []string{"10.1.2.3/8"}})
	if err != nil {
		t.Fatal(err)
	}
	if old.Digest != secret.Digest() {
		t.Fatal("another digest")
	}
	soon, later, past := time.Now().Add(time.Hour).UTC().Truncate(time.Second), time.Now().Add(48*time.Hour).UTC().Truncate(time.Second), time.Now().Add(-time.Second)
	old.Expires = &soon
	if err := b.Publisher().change(ctx, func(tx store.Tx) error { return tx.Insert(ctx, old) }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keyring().Roll(ctx, old.ID, Roll{End: &past}); err == nil || !strings.Contains(err.Error(), "cease to work at once") {
		t.Errorf("an end that is past: %v", err)
	}
	if _, err := b.Keyring().Roll(ctx, old.ID, Roll{Expires: &past}); err == nil || !strings.Contains(err.Error(), "is past") {
		t.Errorf("a new key that has expired: %v", err)
	}
	if k, err := b.Keyring().Show(ctx, old.ID); err != nil || k.Status != active {
		t.Errorf("%+v, %v", k, err)
	}
	rolled, err := b.Keyring().Roll(ctx, old.ID, Roll{End: &later, Expires: &later})
	if err != nil {
		t.Fatal(err)
	}
	if !rolled.Expires.Equal(later) || !rolled.Old.Expires.Equal(soon) || rolled.Old.Status != deprecated || rolled.Endpoints[0] != "/v1/*" {
		t.Errorf("%+v of %+v", rolled.Key, rolled.Old)
	}
	if k, err := b.Keyring().Show(ctx, old.ID); err != nil || !k.Expires.Equal(soon) || k.Status != deprecated {
		t.Errorf("%+v, %v", k, err)
	}
}

// A bundle's name leads nowhere else, and one that is not there names those that are.
func TestNamesOfBundles(t *testing.T) {
	dir := t.TempDir()
	h := open(t, filepath.Join(dir, "home"))
	initBundle(t, h, "default")
	initBundle(t, open(t, dir), "vinr")
	for name, want := range map[string]string{
		"shop": `which has ["default"]`, "../vinr": "use lower-case letters", ".": "use lower-case letters", "Default": "use lower-case letters",
	} {
		if _, err := h.OpenWithoutPolicy(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
