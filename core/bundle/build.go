package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	if len(records) <= leafRecords {
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
		case len(records) <= leafRecords || below == branchBits:
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
