// Package cache makes the ristretto caches of the verifier: bounded in bytes,
// with what the cache itself takes counted in, and keyed by SHA-256 hashes.
//
// What is stored costs [Entry] more than its own bytes. Whoever gets a value
// compares its whole hash: a hit proves 128 bits of it.
package cache

import (
	"encoding/binary"
	"runtime"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

// What ristretto takes in memory, in bytes, as a test measures it.
const (
	// Entry is for each value: its places in two maps and its share of the
	// counters.
	Entry = 256
	// empty is for a cache without values.
	empty = 320 << 10
)

// Cache keeps values by hash. It is safe for concurrent use. Nobody closes it:
// ristretto panics where a cache is used that is closed or being closed, and who
// uses one, such as the requests of a configuration that another has replaced,
// may last longer than whoever made it. The garbage collector ends its goroutines
// once nobody can use it any more.
type Cache[V any] struct {
	ristretto *ristretto.Cache[[]byte, V]
	limit     int64
}

// New returns a cache that takes at most limit bytes, of values that usually
// cost usual bytes each. ring is how many lookups are gathered before they are
// handed to the goroutine that keeps count of them. No value may refer to the
// cache, which would then never be collected.
func New[V any](limit, usual, ring int64) (*Cache[V], error) {
	r, err := ristretto.NewCache(&ristretto.Config[[]byte, V]{
		NumCounters:        max(10*limit/usual, 1000), // ten for each value that fits
		MaxCost:            max(limit-empty, limit/2, 1),
		BufferItems:        ring,
		IgnoreInternalCost: true,
		KeyToHash:          words,
	})
	if err != nil {
		return nil, err
	}
	c := &Cache[V]{r, limit}
	runtime.AddCleanup(c, (*ristretto.Cache[[]byte, V]).Close, r)
	return c, nil
}

// Each method keeps the cache alive to its end: else a caller's last one could
// still run when its cache is collected.

// Get returns the value under a hash of at least 128 bits.
func (c *Cache[V]) Get(hash []byte) (V, bool) {
	v, ok := c.ristretto.Get(hash)
	runtime.KeepAlive(c)
	return v, ok
}

// Set keeps a value, unless others are worth more.
func (c *Cache[V]) Set(hash []byte, value V, cost int64) {
	c.ristretto.Set(hash, value, cost)
	runtime.KeepAlive(c)
}

// SetFor keeps a value for some time at most.
func (c *Cache[V]) SetFor(hash []byte, value V, cost int64, life time.Duration) {
	c.ristretto.SetWithTTL(hash, value, cost, life)
	runtime.KeepAlive(c)
}

// Wait returns when everything set so far can be found.
func (c *Cache[V]) Wait() {
	c.ristretto.Wait()
	runtime.KeepAlive(c)
}

// Used is how much of its limit the cache takes.
func (c *Cache[V]) Used() int64 {
	free := c.ristretto.RemainingCost()
	runtime.KeepAlive(c)
	return c.limit - free
}

// Limit is how much it may take.
func (c *Cache[V]) Limit() int64 { return c.limit }

// words is the first 128 bits of a hash as two words, which ristretto takes as a
// key's hash and conflict hash.
func words(hash []byte) (uint64, uint64) {
	return binary.BigEndian.Uint64(hash), binary.BigEndian.Uint64(hash[8:])
}
