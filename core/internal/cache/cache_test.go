package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync"
	"testing"

	"github.com/keystile/keystile/internal/testing/memory"
)

// A cache takes what its constants say, whatever the size of its values.
func TestCost(t *testing.T) {
	for _, tt := range []struct{ limit, value int64 }{{4 << 20, 512}, {16 << 20, 1024}, {16 << 20, 4096}, {64 << 20, 1024}, {64 << 20, 6144}} {
		running, before := runtime.NumGoroutine(), memory.Heap()
		c, err := New[[]byte](tt.limit, tt.value+Entry, 64)
		if err != nil {
			t.Fatal(err)
		}
		nothing := memory.Heap() - before
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
		used := c.ristretto.MaxCost() - c.ristretto.RemainingCost()
		grown := memory.Heap() - before
		t.Logf("limit %d, values of %d: %d values, heap %d (%.0f %% of the limit, %d when empty): %d for each", tt.limit, tt.value,
			used/(tt.value+Entry), grown, 100*float64(grown)/float64(tt.limit), nothing, (grown-nothing)/(used/(tt.value+Entry))-tt.value)
		if grown > tt.limit*105/100 || grown < tt.limit*80/100 {
			t.Errorf("limit %d, values of %d: the heap has grown by %d", tt.limit, tt.value, grown)
		}
		runtime.KeepAlive(c)
		memory.WaitCollected(t, running)
	}
}

// A cache is used by many and closed by none: whoever still uses it may, and its
// goroutines end when nobody can any more.
func TestNobodyCloses(t *testing.T) {
	before := runtime.NumGoroutine()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				c, err := New[int](1<<20, 1024, 64)
				if err != nil {
					t.Error(err)
					return
				}
				for n := range 200 { // the last use is in the loop: nothing holds c after it
					key := sha256.Sum256([]byte{byte(i), byte(n)})
					c.Set(key[:], n, 1024)
					c.Get(key[:])
				}
			}
		})
		group.Go(func() {
			for range 50 {
				runtime.GC()
			}
		})
	}
	group.Wait()
	memory.WaitCollected(t, before)
}
