// Package memory measures what a test takes of it.
package memory

import (
	"runtime"
	"testing"
	"time"
)

// Heap is how many bytes live on the heap.
func Heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// WaitCollected waits until no more goroutines run than these: those of a cache end
// when it is collected.
func WaitCollected(t testing.TB, goroutines int) {
	t.Helper()
	for begin := time.Now(); runtime.NumGoroutine() > goroutines; runtime.GC() {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d goroutines are left, not %d", runtime.NumGoroutine(), goroutines)
		}
	}
}
