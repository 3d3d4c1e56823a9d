package bundle

import (
	"bytes"
	"runtime"
	"testing"

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
