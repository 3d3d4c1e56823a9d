package core_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/core/shape"
)

// hosted is a verifier whose policy names hosts.
func hosted(t testing.TB, hosts ...string) *core.Verifier {
	t.Helper()
	p, err := compile.Compile("policy", []byte(defaultPolicy(t)), compile.Options{Hosts: map[string][]string{"": hosts}})
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(t, core.Config{})
	now := time.Now()
	if err := v.Activate(newPublisher(t, p, now.Add(-time.Hour)).bundle(now.Add(-time.Minute))); err != nil {
		t.Fatal(err)
	}
	return v
}

// Which bundle answers for a host, and which host is certainly nobody's.
func TestHosts(t *testing.T) {
	one, two, missing := hosted(t, "one.test"), hosted(t, "two.test:8443", "three.test"), newVerifier(t, core.Config{})
	both, all := core.Hosts{one, two}, core.Hosts{one, two, missing}
	for authority, want := range map[string]struct {
		i       int
		nobodys bool
	}{
		"one.test": {0, false}, "ONE.test.:443": {0, false}, "two.test:8443": {1, false}, "three.test": {1, false},
		"one.test:8443": {0, false}, "two.test": {1, false}, "three.test:80": {1, false}, // with another port: theirs to refuse
		"other.test": {0, true}, "other.test:8443": {0, true}, "sub.one.test": {0, true},
		"": {0, false}, "one.test,other.test": {0, false}, "x@other.test": {0, false}, "other.test:": {0, false}, "[::1": {0, false},
	} {
		if i, nobodys := both.Find(authority); i != want.i || nobodys != want.nobodys {
			t.Errorf("%q: %d, nobody's %v", authority, i, nobodys)
		}
		if _, nobodys := all.Find(authority); nobodys {
			t.Errorf("%q is nobody's although a bundle is not here yet", authority)
		}
	}
}

// FuzzHosts: what is nobody's is no policy's, in whatever spelling.
func FuzzHosts(f *testing.F) {
	for _, seed := range []string{"one.test", "One.Test.", "two.test:8443", "other.test", "a,b", "one.test:0443", "[::1]:443"} {
		f.Add(seed)
	}
	hosts := core.Hosts{hosted(f, "one.test"), hosted(f, "two.test:8443")}
	f.Fuzz(func(t *testing.T, authority string) {
		i, nobodys := hosts.Find(authority)
		if i < 0 || i >= len(hosts) {
			t.Fatalf("%q: %d", authority, i)
		}
		host, ok := shape.CanonicalHost(authority)
		if !nobodys {
			return
		}
		lower := strings.ToLower(authority)
		if !ok || strings.HasPrefix(lower, "one.test") && !strings.HasPrefix(lower, "one.test.") && (len(lower) == 8 || lower[8] == ':') || shape.HostName(host) == "two.test" {
			t.Errorf("%q is nobody's", authority)
		}
	})
}
