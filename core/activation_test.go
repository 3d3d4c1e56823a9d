package core_test

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
)

// R72: what becomes active in the middle of a decision decides the next one, and has no
// part in this one: neither its keys nor its policy.
func TestActivationAmidADecision(t *testing.T) {
	now := time.Now()
	document := func(kinds, keyID, route string) *policy.Policy {
		p, err := compile.Compile("policy", []byte(`name: x
sources: [{header: Authorization, scheme: Bearer}]
kinds: {`+kinds+`}
environments: {live: }
scopes: {read: }
identity_headers: {key_id: `+keyID+`}
routes:
  - `+route+`
`), compile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	key, rec := newKey(t, "key_1")
	revoked := rec
	revoked.Status = bundle.Revoked
	p := newPublisher(t, document("secret: {prefix: sk}, other: {prefix: ok}", "X-One", "{name: one, path: /x}"), now.Add(-time.Hour))
	before := p.bundle(now.Add(-3*time.Minute), rec)
	then := map[policy.Reason]*bundle.Bundle{policy.Revoked: p.bundle(now.Add(-2*time.Minute), revoked), policy.Unknown: p.bundle(now.Add(-2 * time.Minute))}
	for reason, narrower := range map[policy.Reason]*policy.Policy{
		policy.OK:        document("other: {prefix: ok}, secret: {prefix: sk}", "X-Two", "{name: two, path: /x}"),
		policy.WrongKind: document("secret: {prefix: sk}, other: {prefix: ok}", "X-One", "{name: one, path: /x, kinds: [other]}"),
		policy.Scope:     document("secret: {prefix: sk, scoped: true}, other: {prefix: ok}", "X-One", "{name: one, path: /x, scopes: {GET: read}}"),
	} {
		if err := p.Publish(narrower, "x", "edge", now.Add(-time.Minute).UnixMilli()); err != nil {
			t.Fatal(err)
		}
		then[reason] = p.bundle(now.Add(-30*time.Second), rec)
	}
	for reason, after := range then {
		for _, used := range []bool{false, true} {
			var amid func()
			v := newVerifier(t, core.Config{Now: func() time.Time {
				if run := amid; run != nil {
					amid = nil
					run()
				}
				return now
			}})
			if err := v.Activate(before); err != nil {
				t.Fatal(err)
			}
			if used {
				wantReason(t, "before", v.Verify(request(key)), policy.OK)
				v.Wait()
			}
			amid = func() {
				if err := v.Activate(after); err != nil {
					t.Error(err)
				}
			}
			d := v.Verify(request(key))
			wantReason(t, "amid, then "+reason.String(), d, policy.OK)
			if d.Route != "one" || !slices.Contains(d.Set, core.Header{Name: "X-One", Value: "key_1"}) {
				t.Errorf("amid, then %s: route %s, %v", reason, d.Route, d.Set)
			}
			d = v.Verify(request(key))
			wantReason(t, "after", d, reason)
			if reason == policy.OK && (d.Route != "two" || !slices.Contains(d.Set, core.Header{Name: "X-Two", Value: "key_1"})) {
				t.Errorf("after: route %s, %v", d.Route, d.Set)
			}
		}
	}
}

// R72: of two bundles that are given at once the later one stays: one is looked at and
// taken before the other is looked at.
func TestTwoActivationsAtOnce(t *testing.T) {
	now := time.Now()
	_, rec := newKey(t, "key_1")
	p := newPublisher(t, compiled(t, "default"), now.Add(-time.Hour))
	early, late := p.bundle(now.Add(-2*time.Minute), rec), p.bundle(now.Add(-time.Minute), rec)
	var v *core.Verifier
	var begun atomic.Bool
	done := make(chan error, 1)
	v = newVerifier(t, core.Config{Now: func() time.Time {
		if begun.CompareAndSwap(false, true) { // the early one is looked at
			go func() { done <- v.Activate(late) }()
			time.Sleep(50 * time.Millisecond) // if nothing holds it back, it is done by then
		}
		return now
	}})
	if err := v.Activate(early); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v.Bundle() != late {
		t.Error("the earlier bundle is active")
	}
}
