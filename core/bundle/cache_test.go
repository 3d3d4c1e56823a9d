package bundle

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/testing/memory"
)

// What the cache says that it takes is what the heap grows by, its own tables
// included, and stays below its limit.
func TestCacheCostsWhatItSays(t *testing.T) {
	records := testRecords(150_000)
	p := publish(t, records)
	var file bytes.Buffer
	if err := WritePack(&file, p.notes, p.pub.Compiled, p.nodes); err != nil {
		t.Fatal(err)
	}
	pack, err := OpenPack(bytes.NewReader(file.Bytes()), int64(file.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{2 << 20, 8 << 20} {
		b, err := Open(p.notes, p.pub.Compiled, pack, p.trust(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		for i := range records { // the pins are the bundle's own
			if i%64 == 0 {
				b.Find(&records[i].Digest, nil)
			}
		}
		running, before := runtime.NumGoroutine(), memory.Heap()
		cache, err := NewCache(limit)
		if err != nil {
			t.Fatal(err)
		}
		empty := memory.Heap() - before
		for range 2 {
			for i := 0; i < len(records); i += 5 {
				if _, _, err := b.Find(&records[i].Digest, cache); err != nil {
					t.Fatal(err)
				}
				if i%1000 == 0 {
					cache.Wait()
				}
			}
		}
		cache.Wait()
		said, grown := cache.nodes.Used(), memory.Heap()-before
		t.Logf("limit %d: it says %d, and the heap has grown by %d (%d when empty)", limit, said, grown, empty)
		if said < limit*8/10 || grown > said*11/10 || grown < said*8/10 {
			t.Errorf("limit %d: it says %d, and the heap has grown by %d", limit, said, grown)
		}
		runtime.KeepAlive(b)
		runtime.KeepAlive(cache)
		memory.WaitCollected(t, running)
	}
}

// A node that was verified at one place is not taken for another's, nor for one whose
// hash only begins alike.
func TestCachedNodeStandsInOnePlace(t *testing.T) {
	p := publish(t, testRecords(5))
	c, err := NewCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(p.notes, p.pub.Compiled, p.nodes, p.trust(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	records := testRecords(5)
	d := records[0].Digest
	at := place{d, 0, 5}
	if _, _, err := b.Find(&d, c); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	root := b.Manifest.Root
	if c.get(root, at, b.allowed) == nil {
		t.Fatal("the test shows nothing: the leaf is not kept")
	}
	first := credential.Digest(c.get(root, at, b.allowed).digest(0))
	alike := root
	alike[31] ^= 1 // the cache tells no two apart that begin alike
	for name, n := range map[string]*node{
		"another hash":  c.get(alike, at, b.allowed),
		"another depth": c.get(root, place{first, 6, 5}, b.allowed),
		"another count": c.get(root, place{d, 0, 6}, b.allowed),
	} {
		if n != nil {
			t.Errorf("%s: a node that is not there is taken", name)
		}
	}
	n := *c.get(root, at, b.allowed)
	n.depth = 12
	d = credential.Digest(n.digest(0))
	other := d
	other[0] ^= 0xff
	if !n.standsAt(place{d, 12, 5}) || n.standsAt(place{other, 12, 5}) {
		t.Error("a leaf is taken for one of other digests")
	}
}
