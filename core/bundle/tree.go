package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/wire"
)

// Tree is the key tree of a set of records.
type Tree struct {
	Root Hash
	Keys uint64
}

// Build builds the key tree of records and calls emit with every node, in tree
// order: a branch before what is below it. The same set in any order gives the
// same tree. It sorts records in place by digest, and refuses records that
// cannot be published and key IDs or digests given twice (R51).
func Build(records []Record, emit func(Hash, []byte) error) (Tree, error) {
	ids := make(map[string]struct{}, len(records))
	for i := range records {
		r := &records[i]
		if err := r.Check(); err != nil {
			return Tree{}, fmt.Errorf("key %q: %w", r.KeyID, err)
		}
		if _, twice := ids[r.KeyID]; twice {
			return Tree{}, fmt.Errorf("key ID %q is given twice", r.KeyID)
		}
		ids[r.KeyID] = struct{}{}
	}
	slices.SortFunc(records, func(a, b Record) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	for i := 1; i < len(records); i++ {
		if records[i].Digest == records[i-1].Digest {
			return Tree{}, fmt.Errorf("keys %q and %q have one digest", records[i-1].KeyID, records[i].KeyID)
		}
	}
	t := treeBuilder{emit: emit}
	root, err := t.subtree(records, 0)
	return Tree{Root: root, Keys: uint64(len(records))}, err
}

type treeBuilder struct {
	emit func(Hash, []byte) error
	// Scratch for leaves.
	names []string
	index map[string]uint64
}

// pending is a node that is made but not yet emitted: a branch's hash needs
// those below it, and it goes out before them.
type pending struct {
	hash  Hash
	bytes []byte
}

func (t *treeBuilder) subtree(records []Record, depth int) (Hash, error) {
	nodes, err := t.build(records, depth, nil)
	if err != nil {
		return Hash{}, err
	}
	for _, n := range nodes {
		if err := t.emit(n.hash, n.bytes); err != nil {
			return Hash{}, err
		}
	}
	return nodes[0].hash, nil
}

// build appends the nodes of the subtree of records at depth, its own first.
func (t *treeBuilder) build(records []Record, depth int, nodes []pending) ([]pending, error) {
	if len(records) <= LeafRecords {
		leaf := t.leaf(records)
		return append(nodes, pending{HashOf(leaf), leaf}), nil
	}
	if depth >= digestBits {
		return nil, errors.New("records are not divided by their digests") // they are distinct
	}
	own := len(nodes)
	nodes = append(nodes, pending{})
	b := []byte{typeBranch, nodeFormat}
	var frontier func(records []Record, below int) error
	frontier = func(records []Record, below int) error {
		switch {
		case len(records) == 0:
			b = appendPart(b, below, 0, Hash{})
			return nil
		case len(records) <= LeafRecords || below == branchBits:
			at := len(nodes)
			var err error
			if nodes, err = t.build(records, depth+below, nodes); err != nil {
				return err
			}
			b = appendPart(b, below, len(records), nodes[at].hash)
			return nil
		}
		bit := depth + below
		half, _ := slices.BinarySearchFunc(records, 1, func(r Record, one int) int {
			return int(r.Digest[bit/8]>>(7-bit%8)&1) - one
		})
		if err := frontier(records[:half], below+1); err != nil {
			return err
		}
		return frontier(records[half:], below+1)
	}
	if err := frontier(records, 0); err != nil {
		return nil, err
	}
	nodes[own] = pending{HashOf(b), b}
	return nodes, nil
}

func appendPart(b []byte, depth, count int, hash Hash) []byte {
	b = wire.AppendInt(append(b, byte(depth)), uint64(count))
	return append(b, hash[:]...)
}

// leaf encodes records, which are sorted by digest.
func (t *treeBuilder) leaf(records []Record) []byte {
	if t.index == nil {
		t.index = make(map[string]uint64)
	}
	clear(t.index)
	t.names = t.names[:0]
	for i := range records {
		records[i].strings(func(s string) {
			if _, ok := t.index[s]; !ok {
				t.index[s] = 0
				t.names = append(t.names, s)
			}
		})
	}
	slices.SortFunc(t.names, strings.Compare)
	b := wire.AppendInt([]byte{typeLeaf, nodeFormat}, uint64(len(t.names)))
	for i, s := range t.names {
		t.index[s] = uint64(i)
		b = wire.AppendBytes(b, s)
	}
	b = wire.AppendInt(b, uint64(len(records)))
	for i := range records {
		b = append(b, records[i].Digest[:]...)
	}
	var body []byte
	for i := range records {
		body = records[i].appendBody(body[:0], func(s string) uint64 { return t.index[s] })
		b = wire.AppendBytes(b, body)
	}
	return b
}

// Find returns the record of d and the hash of the leaf where it stands, or
// would stand: the record is nil if the bundle proves that there is none. An
// error is a [*NodeError] or concerns this key alone. cache may be nil.
func (b *Bundle) Find(d *credential.Digest, cache *Cache) (*Record, Hash, error) {
	leaf, err := b.leaf(d, cache)
	if err != nil {
		return nil, Hash{}, err
	}
	rec, err := leaf.record(d)
	if err == nil && rec != nil {
		cache.put(leaf)
	}
	return rec, leaf.hash, err
}

// Leaf returns the hash of the leaf where d stands, or would stand.
func (b *Bundle) Leaf(d *credential.Digest, cache *Cache) (Hash, error) {
	leaf, err := b.leaf(d, cache)
	if err != nil {
		return Hash{}, err
	}
	return leaf.hash, nil
}

func (b *Bundle) leaf(d *credential.Digest, cache *Cache) (*node, error) {
	hash, at := b.Manifest.Root, place{*d, 0, b.Manifest.Keys}
	for {
		n, err := b.node(hash, at, cache)
		if err != nil {
			return nil, err
		}
		if !n.branch() {
			return n, nil
		}
		var p part
		p, at = n.find(d, at)
		if p.count == 0 {
			// Nothing is below: an empty leaf, named by the branch that proves it.
			return &node{hash: n.hash, depth: at.depth}, nil
		}
		hash = p.hash
	}
}

func (b *Bundle) node(hash Hash, at place, cache *Cache) (*node, error) {
	if n := b.pinned.get(hash, at); n != nil {
		return n, nil
	}
	if n := cache.get(hash, at, b.allowed); n != nil {
		return n, nil
	}
	raw, err := b.nodes.Node(hash)
	if err != nil {
		return nil, &NodeError{hash, true, err}
	}
	n, err := parseNode(hash, raw, at, b.allowed)
	if err != nil {
		return nil, &NodeError{hash, false, err}
	}
	if n.branch() && !b.pinned.put(n, at) {
		cache.put(n)
	}
	return n, nil
}

// Walk reads and verifies the whole tree and calls use with every record, by
// ascending digest. It also refuses what spans leaves: key IDs given twice.
func (b *Bundle) Walk(use func(*Record) error) error {
	ids := make(map[string]struct{})
	return b.eachNode(func(n *node, _ []byte) error {
		return n.records(func(r *Record) error {
			if _, twice := ids[r.KeyID]; twice {
				return fmt.Errorf("key ID %q is there twice", r.KeyID)
			}
			ids[r.KeyID] = struct{}{}
			return use(r)
		})
	})
}

// Nodes reads and verifies the whole tree and calls use with every node, in tree
// order.
func (b *Bundle) Nodes(use func(Hash, []byte) error) error {
	return b.eachNode(func(n *node, raw []byte) error { return use(n.hash, raw) })
}

func (b *Bundle) eachNode(use func(*node, []byte) error) error {
	return b.walk(b.Manifest.Root, place{count: b.Manifest.Keys}, use)
}

func (b *Bundle) walk(hash Hash, at place, use func(*node, []byte) error) error {
	raw, err := b.nodes.Node(hash)
	if err != nil {
		return &NodeError{hash, true, err}
	}
	n, err := parseNode(hash, raw, at, b.allowed)
	if err != nil {
		return &NodeError{hash, false, err}
	}
	if err := use(n, raw); err != nil {
		return err
	}
	levels := min(branchBits, digestBits-n.depth)
	for i, p := range n.parts {
		if p.count == 0 {
			continue
		}
		below := place{at.prefix, at.depth + int(p.depth), p.count}
		setBits(&below.prefix, at.depth, levels, int(n.start[i]))
		if err := b.walk(p.hash, below, use); err != nil {
			return err
		}
	}
	return nil
}

func setBits(d *credential.Digest, at, n, value int) {
	for i := range n {
		bit := at + i
		mask := byte(1) << (7 - bit%8)
		d[bit/8] &^= mask
		if value>>(n-1-i)&1 == 1 {
			d[bit/8] |= mask
		}
	}
}
