package bundle

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/keystile/keystile/core/credential"
)

// notebook keeps the nodes of one tree through its changes, and counts.
type notebook struct {
	Nodes
	reads, emitted, dropped int
}

func (n *notebook) Node(h Hash) ([]byte, error) {
	n.reads++
	return n.Nodes.Node(h)
}

func (n *notebook) emit(h Hash, b []byte) error {
	n.emitted++
	return n.Add(h, b)
}

func (n *notebook) drop(h Hash) error {
	n.dropped++
	delete(n.bytes, h)
	return nil
}

// publication allows what the test records are.
func publication(s set) *Publication {
	note := new(PolicyNote)
	for _, r := range s {
		note.Kinds, note.Environments = append(note.Kinds, r.Kind), append(note.Environments, r.Environment)
	}
	r := testRecords(1)[0]
	note.Kinds, note.Environments = append(note.Kinds, r.Kind), append(note.Environments, r.Environment)
	slices.Sort(note.Kinds)
	slices.Sort(note.Environments)
	note.Kinds, note.Environments = slices.Compact(note.Kinds), slices.Compact(note.Environments)
	return &Publication{Note: note}
}

// Whatever is changed, in one step or in many, an updated tree is the tree that is
// built of the same records, and the nodes that are left are its nodes.
func TestUpdateIsBuild(t *testing.T) {
	rnd := mathrand.New(mathrand.NewPCG(5, 6))
	for _, n := range sizes {
		s := newSet(testRecords(n))
		p := publication(s)
		tree, built := s.build(t)
		kept := &notebook{Nodes: *built}
		for round := range 60 {
			changes := randomChanges(rnd, s, round)
			after, err := p.Update(tree, kept, changes, kept.emit, kept.drop)
			if err != nil {
				t.Fatalf("%d keys, round %d: %v", n, round, err)
			}
			want, nodes := s.build(t)
			if after != want {
				t.Fatalf("%d keys, round %d: %v instead of %v", n, round, after, want)
			}
			if !maps.EqualFunc(kept.bytes, nodes.bytes, bytes.Equal) {
				t.Fatalf("%d keys, round %d: %d nodes are kept instead of %d", n, round, len(kept.bytes), len(nodes.bytes))
			}
			tree = after
		}
	}
}

// randomChanges makes some changes to s, of which some come close together, and
// returns them.
func randomChanges(rnd *mathrand.Rand, s set, round int) (changes []Edit) {
	digests := slices.SortedFunc(maps.Keys(s), func(a, b credential.Digest) int { return bytes.Compare(a[:], b[:]) })
	many := []int{0, 1, 2, 70, 300}[rnd.IntN(5)]
	near := rnd.IntN(2) == 1
	for i := range many {
		d := credential.Digest(sha256.Sum256(fmt.Appendf(nil, "%d of %d", i, round)))
		if near {
			d[0], d[1] = byte(round), 0
		}
		r := testRecords(1)[0]
		r.Digest, r.KeyID = d, fmt.Sprintf("new_%d_%d", round, i)
		s[d] = r
		changes = append(changes, Edit{Record: r})
	}
	for _, d := range digests {
		switch out := rnd.IntN(60); {
		case out == 0 || round%20 == 19: // now and then all go
			changes = append(changes, Edit{Record: Record{Digest: d}, Gone: true})
			delete(s, d)
		case out == 1:
			r := s[d]
			r.Tenant += "x"
			s[d] = r
			changes = append(changes, Edit{Record: r})
		}
	}
	rnd.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
	return changes
}

// One change among many keys reads and writes its path: a node for every six bits.
func TestUpdateStaysOnItsPath(t *testing.T) {
	s := newSet(testRecords(20_000))
	p := publication(s)
	tree, built := s.build(t)
	kept := &notebook{Nodes: *built}
	for i := range 50 {
		d := credential.Digest(sha256.Sum256(fmt.Appendf(nil, "one %d", i)))
		r := testRecords(1)[0]
		r.Digest, r.KeyID = d, fmt.Sprintf("one_%d", i)
		kept.reads, kept.emitted = 0, 0
		var err error
		if tree, err = p.Update(tree, kept, []Edit{{Record: r}}, kept.emit, kept.drop); err != nil {
			t.Fatal(err)
		}
		if kept.reads > 3 || kept.emitted > 4 { // a full leaf becomes two
			t.Errorf("%d nodes are read and %d written", kept.reads, kept.emitted)
		}
	}
}

// What cannot be published, or would lose something, changes nothing.
func TestUpdateRefuses(t *testing.T) {
	s := newSet(testRecords(200))
	p := publication(s)
	tree, built := s.build(t)
	one := testRecords(201)[200]
	for name, tt := range map[string]struct {
		changes []Edit
		nodes   NodeSource
		want    string
	}{
		"twice":          {[]Edit{{Record: one}, {Record: one}}, built, "changed twice"},
		"not there":      {[]Edit{{Record: one, Gone: true}}, built, "is not in the tree"},
		"kind":           {[]Edit{{Record: with(one, func(r *Record) { r.Kind = "other" })}}, built, "not in the policy note"},
		"environment":    {[]Edit{{Record: with(one, func(r *Record) { r.Environment = "moon" })}}, built, "not in the policy note"},
		"no key ID":      {[]Edit{{Record: with(one, func(r *Record) { r.KeyID = "" })}}, built, "its ID has 0 bytes"},
		"no node":        {[]Edit{{Record: one}}, new(Nodes), "it is not there"},
		"damaged":        {[]Edit{{Record: one}}, damaged{built}, "do not have this hash"},
		"nothing to do":  {nil, new(Nodes), ""},
		"all in its way": {[]Edit{{Record: one}}, built, ""},
	} {
		nothing := func(Hash, []byte) error { return nil }
		_, err := p.Update(tree, tt.nodes, tt.changes, nothing, func(Hash) error { return nil })
		if (err == nil) != (tt.want == "") || err != nil && !bytes.Contains([]byte(err.Error()), []byte(tt.want)) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func with(r Record, change func(*Record)) Record {
	change(&r)
	return r
}

type damaged struct{ NodeSource }

func (d damaged) Node(h Hash) ([]byte, error) {
	b, err := d.NodeSource.Node(h)
	if err == nil {
		b = append(slices.Clone(b), 0)
	}
	return b, err
}

// A leaf with a field that only a later version knows is not written again.
func TestUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	records := testRecords(1)
	leaf := withUnknownField(records[0])
	nodes := new(Nodes)
	if err := nodes.Add(HashOf(leaf), leaf); err != nil {
		t.Fatal(err)
	}
	s := newSet(records)
	_, err := publication(s).Update(Tree{HashOf(leaf), 1}, nodes, []Edit{{Record: with(records[0], func(r *Record) { r.Status = Revoked })}},
		func(Hash, []byte) error { return nil }, func(Hash) error { return nil })
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("does not know")) {
		t.Errorf("%v", err)
	}
}

// withUnknownField is a leaf of one record that has a field of a later version.
func withUnknownField(r Record) []byte {
	leaf := new(treeBuilder).leaf([]Record{r})
	var names []string
	r.strings(func(s string) { names = append(names, s) })
	slices.Sort(names)
	names = slices.Compact(names)
	body := r.appendBody(nil, func(s string) uint64 { return uint64(slices.Index(names, s)) })
	leaf = bytes.TrimSuffix(leaf, append(appendLen(len(body)), body...))
	body = append(body, 100, 2, 1, 2)
	return append(append(leaf, appendLen(len(body))...), body...)
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newSet(testRecords(n))
			p := publication(s)
			tree, built := s.build(b)
			kept := &notebook{Nodes: *built}
			records := slices.Collect(maps.Values(s))
			b.ReportAllocs()
			for i := range b.N {
				r := records[i%len(records)]
				r.Status = Status(i/len(records)%2 + 1)
				var err error
				if tree, err = p.Update(tree, kept, []Edit{{Record: r}}, kept.emit, kept.drop); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
