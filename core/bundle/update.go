package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/keystile/keystile/core/credential"
)

// Edit is what becomes of one key: its record is added, or takes the place of
// the one with its digest; or, with Gone, that one is taken out.
type Edit struct {
	Record
	Gone bool // only the digest counts
}

// Update applies changes to a tree, as [Build] would build it of the records
// that there are then, but reads and writes nothing beside the paths of the
// changes. It reads nodes of the tree from nodes, and verifies them as an edge
// does under the policy note; emit gets every node that is new, those below a
// branch before it, and drop the name of every node that the tree does not have
// any more. It sorts changes by digest.
//
// That no two keys share a key ID cannot be seen from paths: the caller has to
// know.
func (p *Publication) Update(tree Tree, nodes NodeSource, changes []Edit, emit func(Hash, []byte) error, drop func(Hash) error) (Tree, error) {
	slices.SortFunc(changes, func(a, b Edit) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	for i := range changes {
		c := &changes[i]
		if i > 0 && c.Digest == changes[i-1].Digest {
			return Tree{}, fmt.Errorf("key %q is changed twice at once", c.KeyID)
		}
		if c.Gone {
			continue
		}
		if err := c.Check(); err != nil {
			return Tree{}, fmt.Errorf("key %q: %w", c.KeyID, err)
		}
		if err := p.Permits(&c.Record); err != nil {
			return Tree{}, err
		}
	}
	u := updater{
		treeBuilder: treeBuilder{emit: emit}, nodes: nodes, drop: drop,
		allowed: p.Note.allowed(),
	}
	return u.update(tree, changes)
}

type updater struct {
	treeBuilder
	nodes   NodeSource
	allowed *allowed
	drop    func(Hash) error
}

// stretch is a part of the tree after the changes: a node that is there, or the
// records below, of which no node is made yet.
type stretch struct {
	at      place // of a node, with its count; of records, their prefix and depth
	hash    Hash
	records []Record
	open    bool // it is records
}

func (s *stretch) count() uint64 {
	if s.open {
		return uint64(len(s.records))
	}
	return s.at.count
}

func (u *updater) update(tree Tree, changes []Edit) (Tree, error) {
	if len(changes) == 0 {
		return tree, nil
	}
	root, err := u.apply(stretch{at: place{count: tree.Keys}, hash: tree.Root}, changes)
	if err != nil {
		return Tree{}, err
	}
	after := Tree{Root: root.hash, Keys: root.count()}
	if root.open {
		after.Root, err = u.subtree(root.records, 0)
	}
	return after, err
}

// apply returns what becomes of the node s once changes, which are all below it, are
// made. What fits into a leaf comes back open.
func (u *updater) apply(s stretch, changes []Edit) (stretch, error) {
	if len(changes) == 0 {
		return s, nil
	}
	if s.at.count == 0 && s.at.depth > 0 {
		return u.merge(s.at, nil, changes) // a branch names no node where there is no record
	}
	n, err := u.read(s)
	if err != nil {
		return stretch{}, err
	}
	if !n.branch() {
		records, err := u.content(n)
		if err != nil {
			return stretch{}, err
		}
		return u.merge(s.at, records, changes)
	}
	below := make([]stretch, len(n.parts))
	count := uint64(0)
	for i := range n.parts {
		var own []Edit
		below[i] = n.stretch(i, s.at)
		own, changes = cut(changes, below[i].at)
		if below[i], err = u.apply(below[i], own); err != nil {
			return stretch{}, err
		}
		count += below[i].count()
	}
	if count <= leafRecords {
		return u.join(s.at, below)
	}
	return u.branch(s.at, below)
}

// read reads the node of a stretch, which is not to be in the tree any more.
func (u *updater) read(s stretch) (*node, error) {
	raw, err := u.nodes.Node(s.hash)
	if err != nil {
		return nil, &NodeError{s.hash, true, err}
	}
	n, err := parseNode(s.hash, raw, s.at, u.allowed)
	if err != nil {
		return nil, &NodeError{s.hash, false, err}
	}
	return n, u.drop(s.hash)
}

// stretch is part i of a branch at a place.
func (n *node) stretch(i int, at place) stretch {
	p := n.parts[i]
	below := place{at.prefix, at.depth + int(p.depth), p.count}
	setBits(&below.prefix, at.depth, min(branchBits, digestBits-n.depth), int(n.start[i]))
	return stretch{at: below, hash: p.hash}
}

// cut cuts off the changes below a place; those are the first ones.
func cut(changes []Edit, at place) (below, rest []Edit) {
	n := slices.IndexFunc(changes, func(c Edit) bool { return !at.covers(&c.Digest) })
	if n < 0 {
		n = len(changes)
	}
	return changes[:n], changes[n:]
}

// content decodes a leaf. It refuses one of which something would be lost when it is
// written again: fields that this version does not know.
func (u *updater) content(n *node) ([]Record, error) {
	records := make([]Record, 0, n.count+1)
	if err := n.records(func(r *Record) error {
		records = append(records, *r)
		return nil
	}); err != nil {
		return nil, err
	}
	if HashOf(u.leaf(records)) != n.hash {
		return nil, &NodeError{n.hash, false, errors.New("it has fields that this version does not know, and which it would lose: update this program")}
	}
	return records, nil
}

// merge applies changes to the sorted records at a place.
func (u *updater) merge(at place, records []Record, changes []Edit) (stretch, error) {
	merged := make([]Record, 0, len(records)+len(changes))
	for _, c := range changes {
		i, there := slices.BinarySearchFunc(records, c.Digest, func(r Record, d credential.Digest) int { return bytes.Compare(r.Digest[:], d[:]) })
		merged = append(merged, records[:i]...)
		if records = records[i:]; there {
			records = records[1:]
		}
		switch {
		case !c.Gone:
			merged = append(merged, c.Record)
		case !there:
			return stretch{}, fmt.Errorf("the key with digest %x is not in the tree, and cannot be taken out", c.Digest[:4])
		}
	}
	return stretch{at: at, records: append(merged, records...), open: true}, nil
}

// join makes one stretch of records of several that fit into a leaf.
func (u *updater) join(at place, parts []stretch) (stretch, error) {
	var records []Record
	for _, s := range parts {
		if !s.open && s.at.count > 0 {
			n, err := u.read(s)
			if err != nil {
				return stretch{}, err
			}
			if s.records, err = u.content(n); err != nil {
				return stretch{}, err
			}
		}
		records = append(records, s.records...)
	}
	return stretch{at: at, records: records, open: true}, nil
}

// branch makes the branch at a place, of what is below it.
func (u *updater) branch(at place, parts []stretch) (stretch, error) {
	b := []byte{typeBranch, nodeFormat}
	count := uint64(0)
	var frontier func(parts []stretch, at place, below int) error
	frontier = func(parts []stretch, at place, below int) error {
		n := uint64(0)
		for i := range parts {
			n += parts[i].count()
		}
		if n <= leafRecords || below == branchBits {
			hash, err := u.close(at, parts)
			b, count = appendPart(b, below, int(n), hash), count+n
			return err
		}
		if len(parts) == 1 { // a leaf that has become too full
			parts = parts[0].halves()
		}
		left, right := at, at
		left.depth, right.depth = at.depth+1, at.depth+1
		setBits(&right.prefix, at.depth, 1, 1)
		middle := slices.IndexFunc(parts, func(s stretch) bool { return right.covers(&s.at.prefix) })
		if err := frontier(parts[:middle], left, below+1); err != nil {
			return err
		}
		return frontier(parts[middle:], right, below+1)
	}
	if err := frontier(parts, at, 0); err != nil {
		return stretch{}, err
	}
	at.count = count
	hash := HashOf(b)
	return stretch{at: at, hash: hash}, u.emit(hash, b)
}

// halves divides records by the first bit below their place.
func (s stretch) halves() []stretch {
	left, right := s, s
	left.at.depth, right.at.depth = s.at.depth+1, s.at.depth+1
	setBits(&left.at.prefix, s.at.depth, 1, 0)
	setBits(&right.at.prefix, s.at.depth, 1, 1)
	half, _ := slices.BinarySearchFunc(s.records, 1, func(r Record, one int) int { return bitsAt(&r.Digest, s.at.depth, 1) - one })
	left.records, right.records = s.records[:half], s.records[half:]
	return []stretch{left, right}
}

// close returns the name of the node that is, or becomes, what parts are at a place;
// zero where there are no records.
func (u *updater) close(at place, parts []stretch) (Hash, error) {
	if len(parts) == 1 && !parts[0].open {
		return parts[0].hash, nil
	}
	all, err := u.join(at, parts)
	if err != nil || len(all.records) == 0 {
		return Hash{}, err
	}
	return u.subtree(all.records, at.depth)
}
