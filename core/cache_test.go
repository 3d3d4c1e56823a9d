package core

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/cache"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/testing/memory"
	"github.com/keystile/keystile/policies"
)

// A cache hit proves 128 bits of a digest. Another key's record, if one ever
// stood there, is not taken for the key's own.
func TestCacheHitIsRechecked(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var asked, other credential.Digest
	asked[0], other[0], other[31] = 1, 1, 9 // equal in the first 128 bits
	rec := &bundle.Record{Digest: other, KeyID: "key_other", Status: bundle.Active}
	e := &entry{digest: other, record: rec, expires: never}
	e.generation.Store(1)
	v.records.Set(other[:], e, 1)
	v.records.Wait()
	c := &check{verifier: v, snapshot: &snapshot{generation: 1}, digest: asked, now: time.Now()}
	if got, ok := v.records.Get(asked[:]); !ok || got != e {
		t.Fatal("the test shows nothing: the cache tells the two apart")
	}
	defer func() { recover() }() // there is no bundle to look into
	if got, _ := c.find(); got == e {
		t.Error("another key's record was taken")
	}
}

// What the record cache says that it takes is what the heap grows by, whatever
// the records are, and stays below its limit.
func TestRecordCacheCostsWhatItSays(t *testing.T) {
	const limit = 4 << 20
	p, err := policies.Compile("vinr", compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*bundle.Record, int){
		"plain": func(*bundle.Record, int) {},
		"scoped": func(r *bundle.Record, i int) {
			r.Kind, r.Scopes = "restricted", []string{"payments:read", "payouts:read", "refunds:write"}
		},
		"limited": func(r *bundle.Record, i int) {
			r.Restrict([]string{"192.0.2.0/24", "2001:db8::/32"}, []string{"https://a.example"}, []string{"GET /v1/users", "/v1/reports/{id}"})
		},
	} {
		keys := make([]string, 10_000)
		records := make([]bundle.Record, len(keys))
		for i := range keys {
			s, err := credential.Generate("sk", "live")
			if err != nil {
				t.Fatal(err)
			}
			keys[i] = s.Reveal()
			records[i] = bundle.Record{
				Digest: s.Digest(), KeyID: fmt.Sprintf("key_%020d", i), Kind: "secret", Environment: "live",
				Tenant: fmt.Sprintf("tenant_%d", i%1000), Status: bundle.Active, Expires: 4_000_000_000,
			}
			change(&records[i], i)
		}
		b := signed(t, p, records)
		running := runtime.NumGoroutine()
		v, err := New(Config{RecordCache: limit, NodeCache: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		v.nodes = nil            // so that only records are kept
		for _, k := range keys { // the pins are the bundle's own
			d := credential.DigestOf(k)
			if _, err := b.Leaf(&d, nil); err != nil {
				t.Fatal(err)
			}
		}
		v.records, v.tokens = nil, nil
		memory.WaitCollected(t, running)
		before := memory.Heap()
		if v.records, err = cache.New[*entry](limit, usualEntry, 1024); err != nil {
			t.Fatal(err)
		}
		s := &snapshot{bundle: b, generation: 1, policies: 1}
		for range 2 {
			for i, k := range keys {
				c := &check{verifier: v, snapshot: s, key: k, digest: credential.DigestOf(k)}
				if _, err := c.find(); err != nil {
					t.Fatal(err)
				}
				if i%100 == 0 {
					v.records.Wait()
				}
			}
		}
		v.records.Wait()
		said, grown := v.records.Used(), memory.Heap()-before
		t.Logf("%s: it says %d of %d, and the heap has grown by %d", name, said, limit, grown)
		if said < limit*8/10 || grown > limit*105/100 || grown < limit*8/10 {
			t.Errorf("%s: it says %d of %d, and the heap has grown by %d", name, said, limit, grown)
		}
		runtime.KeepAlive(v)
		memory.WaitCollected(t, running)
		runtime.KeepAlive(keys)
		runtime.KeepAlive(s)
	}
}

// signed is a bundle of records.
func signed(t *testing.T, p *policy.Policy, records []bundle.Record) *bundle.Bundle {
	t.Helper()
	now := time.Now().UnixMilli()
	publisher, err := bundletest.NewPublisher(p, p.Name, "edge", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := publisher.Open(now, records)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
