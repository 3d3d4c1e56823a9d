package bundle

import (
	"fmt"

	"github.com/keystile/keystile/core/credential"
)

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

// Nodes reads and verifies the whole of a tree that is published under p, and calls
// use with every node, in tree order.
func (p *Publication) Nodes(tree Tree, nodes NodeSource, use func(Hash, []byte) error) error {
	b := Bundle{nodes: nodes, allowed: p.Note.allowed()}
	return b.walk(tree.Root, place{count: tree.Keys}, func(n *node, raw []byte) error { return use(n.hash, raw) })
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
