package core

import (
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
)

// A cache hit proves 128 bits of a digest. Another key's record, if one ever
// stood there, is not taken for the key's own.
func TestCacheHitIsRechecked(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var asked, other credential.Digest
	asked[0], other[0], other[31] = 1, 1, 9 // equal in the first 128 bits
	rec := &bundle.Record{Digest: other, KeyID: "key_other", Status: bundle.Active}
	e := &entry{digest: other, record: rec, expires: never}
	e.generation.Store(1)
	v.records.Set(other[:], e, 1)
	v.records.Wait()
	c := &check{Verifier: v, snapshot: &snapshot{generation: 1}, digest: asked, now: time.Now()}
	if got, ok := v.records.Get(asked[:]); !ok || got != e {
		t.Fatal("the test shows nothing: the cache tells the two apart")
	}
	defer func() { recover() }() // there is no bundle to look into
	if got, _ := c.find(); got == e {
		t.Error("another key's record was taken")
	}
}
