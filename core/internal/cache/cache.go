// Package cache makes the ristretto caches of the verifier: bounded in bytes,
// with what the cache itself takes counted in, and keyed by SHA-256 hashes.
//
// What is stored costs [Entry] more than its own bytes. Whoever gets a value
// compares its whole hash: a hit proves 128 bits of it.
package cache

import (
	"encoding/binary"

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

// New returns a cache that takes at most limit bytes, of values that usually
// cost usual bytes each. ring is how many lookups are gathered before they are
// handed to the goroutine that keeps count of them.
func New[V any](limit, usual, ring int64) (*ristretto.Cache[[]byte, V], error) {
	return ristretto.NewCache(&ristretto.Config[[]byte, V]{
		NumCounters:        max(10*limit/usual, 1000), // ten for each value that fits
		MaxCost:            max(limit-empty, limit/2, 1),
		BufferItems:        ring,
		IgnoreInternalCost: true,
		KeyToHash:          words,
	})
}

// words is the first 128 bits of a hash as two words, which ristretto takes as a
// key's hash and conflict hash.
func words(hash []byte) (uint64, uint64) {
	return binary.BigEndian.Uint64(hash), binary.BigEndian.Uint64(hash[8:])
}
