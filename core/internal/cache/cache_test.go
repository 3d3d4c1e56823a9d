package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"testing"
)

func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A cache takes what its constants say, whatever the size of its values.
func TestCost(t *testing.T) {
	for _, tt := range []struct{ limit, value int64 }{{4 << 20, 512}, {16 << 20, 1024}, {16 << 20, 4096}, {64 << 20, 1024}, {64 << 20, 6144}} {
		before := heap()
		c, err := New[[]byte](tt.limit, tt.value+Entry, 64)
		if err != nil {
			t.Fatal(err)
		}
		nothing := heap() - before
		for i := range 2 * tt.limit / tt.value {
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(i))
			key := sha256.Sum256(n[:])
			c.Set(key[:], make([]byte, tt.value), tt.value+Entry)
			if i%100 == 0 {
				c.Wait()
			}
		}
		c.Wait()
		used := c.MaxCost() - c.RemainingCost()
		grown := heap() - before
		t.Logf("limit %d, values of %d: %d values, heap %d (%.0f %% of the limit, %d when empty): %d for each", tt.limit, tt.value,
			used/(tt.value+Entry), grown, 100*float64(grown)/float64(tt.limit), nothing, (grown-nothing)/(used/(tt.value+Entry))-tt.value)
		if grown > tt.limit*105/100 || grown < tt.limit*80/100 {
			t.Errorf("limit %d, values of %d: the heap has grown by %d", tt.limit, tt.value, grown)
		}
		c.Close()
	}
}
