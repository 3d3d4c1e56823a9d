package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/keystile/keystile/core/credential"
)

// set is a set of records on which changes are made.
type set map[credential.Digest]Record

func newSet(records []Record) set {
	s := make(set)
	for _, r := range records {
		s[r.Digest] = r
	}
	return s
}

func (s set) build(t testing.TB) (Tree, *Nodes) {
	t.Helper()
	records := slices.Collect(maps.Values(s)) // in any order
	nodes := new(Nodes)
	tree, err := Build(records, nodes.Add)
	if err != nil {
		t.Fatal(err)
	}
	return tree, nodes
}

// sizes lie around the borders of leaves and branches.
var sizes = []int{0, 1, 2, 63, 64, 65, 66, 127, 129, 600, 4095, 4097}

// The same changes in any order give the same root, also where some undo others.
func TestAnyOrderOfChanges(t *testing.T) {
	rnd := mathrand.New(mathrand.NewPCG(1, 2))
	for _, n := range sizes {
		records := testRecords(n + 40)
		type change func(set)
		var changes []change
		for i, r := range records {
			if i%3 == 0 {
				r.Status = Revoked
			}
			changes = append(changes, func(s set) { s[r.Digest] = r })
		}
		var want Tree
		for round := range 4 {
			s := make(set)
			if round%2 == 1 { // what was there before, and goes
				for _, r := range testRecords(n + 80)[n+40:] {
					s[r.Digest] = r
					changes = append(changes, func(s set) { delete(s, r.Digest) })
				}
			}
			rnd.Shuffle(len(changes), func(i, j int) { changes[i], changes[j] = changes[j], changes[i] })
			for _, c := range changes {
				c(s)
			}
			tree, _ := s.build(t)
			if round == 0 {
				want = tree
			}
			if tree != want {
				t.Errorf("%d keys, round %d: root %s, not %s", n, round, tree.Root, want.Root)
			}
		}
	}
}

// One change rewrites the nodes on its path alone: the branches above the key,
// and the leaf where it stands; a leaf that gets too full becomes several, and
// several that fit into one become that.
func TestChangesStayOnTheirPath(t *testing.T) {
	rnd := mathrand.New(mathrand.NewPCG(3, 4))
	for _, n := range sizes {
		s := newSet(testRecords(n))
		for round := range 30 {
			before, old := s.build(t)
			digest := credential.Digest(sha256.Sum256(fmt.Appendf(nil, "change %d of %d", round, n)))
			kind := rnd.IntN(3)
			if digests := slices.SortedFunc(maps.Keys(s), func(a, b credential.Digest) int { return bytes.Compare(a[:], b[:]) }); kind > 0 && n > 0 {
				digest = digests[rnd.IntN(len(digests))]
			}
			switch rec, there := s[digest]; {
			case kind == 1 && there:
				delete(s, digest)
			case kind == 2 && there:
				rec.Tenant += "x"
				s[digest] = rec
			default:
				rec = testRecords(1)[0]
				rec.Digest, rec.KeyID = digest, fmt.Sprintf("new_%d", round)
				s[digest] = rec
			}
			after, fresh := s.build(t)
			around := neighbours(t, before, old, digest)
			bigger := neighbours(t, after, fresh, digest)
			written := 0
			walkNodes(t, after, fresh, func(n *node, at place) {
				if _, same := old.bytes[n.hash]; same {
					return
				}
				written++
				if n.branch() {
					if !at.covers(&digest) {
						t.Errorf("%d keys: a branch beside the path was rewritten", len(s))
					}
					return
				}
				// Whoever is in a leaf that was rewritten was, or is now, in the key's own.
				for i := range int(n.count) {
					d := credential.Digest(n.digest(i))
					if d != digest && !around[d] && !bigger[d] {
						t.Errorf("%d keys: a leaf beside the path was rewritten", len(s))
					}
				}
			})
			if before.Root != after.Root && written == 0 {
				t.Error("the root has changed, and no node was written")
			}
		}
	}
}

// walkNodes calls use with every node of a tree and its place.
func walkNodes(t testing.TB, tree Tree, nodes *Nodes, use func(*node, place)) {
	t.Helper()
	all := &allowed{[]string{"secret"}, []string{"live"}}
	var walk func(Hash, place)
	walk = func(h Hash, at place) {
		n, err := parseNode(h, nodes.bytes[h], at, all)
		if err != nil {
			t.Fatal(err)
		}
		use(n, at)
		for i, p := range n.parts {
			if p.count == 0 {
				continue
			}
			below := place{at.prefix, at.depth + int(p.depth), p.count}
			setBits(&below.prefix, at.depth, min(branchBits, digestBits-n.depth), int(n.start[i]))
			walk(p.hash, below)
		}
	}
	walk(tree.Root, place{count: tree.Keys})
}

// neighbours are the keys of the leaf where d stands or would stand.
func neighbours(t testing.TB, tree Tree, nodes *Nodes, d credential.Digest) map[credential.Digest]bool {
	t.Helper()
	out := make(map[credential.Digest]bool)
	walkNodes(t, tree, nodes, func(n *node, at place) {
		if n.branch() || !at.covers(&d) {
			return
		}
		for i := range int(n.count) {
			out[credential.Digest(n.digest(i))] = true
		}
	})
	return out
}

// path is a node source that has some nodes only, and remembers what was asked.
type path struct {
	*Nodes
	asked []Hash
	only  []Hash // if set, the nodes that are there
	other []byte // given for the node in the way, if set
}

func (p *path) Node(h Hash) ([]byte, error) {
	p.asked = append(p.asked, h)
	if p.only != nil && !slices.Contains(p.only, h) {
		if p.other != nil {
			return p.other, nil
		}
		return nil, errors.New("withheld")
	}
	return p.Nodes.Node(h)
}

// That a key is absent is proven by the nodes on its path alone; a source that
// withholds one of them, or gives another node of the tree for it, gets an error
// that names it, and never "absent".
func TestAbsenceIsProven(t *testing.T) {
	for _, n := range sizes {
		p := publish(t, testRecords(n))
		for i := range 20 {
			d := credential.Digest(sha256.Sum256(fmt.Appendf(nil, "absent %d", i)))
			find := func(source *path) (*Record, error) {
				b, err := Open(p.notes, p.pub.Compiled, source, p.trust(t, 2))
				if err != nil {
					t.Fatal(err)
				}
				rec, _, err := b.Find(&d, nil)
				return rec, err
			}
			all := &path{Nodes: p.nodes}
			if rec, err := find(all); rec != nil || err != nil {
				t.Fatalf("%d keys: %v, %v", n, rec, err)
			}
			if rec, err := find(&path{Nodes: p.nodes, only: all.asked}); rec != nil || err != nil {
				t.Fatalf("%d keys: the path does not suffice: %v, %v", n, rec, err)
			}
			for k, withheld := range all.asked {
				rest := append(slices.Clone(all.asked[:k]), Hash{})
				var node *NodeError
				if rec, err := find(&path{Nodes: p.nodes, only: rest}); rec != nil || !errors.As(err, &node) || !node.Missing || node.Node != withheld {
					t.Fatalf("%d keys, withheld: %v, %v", n, rec, err)
				}
				for _, other := range p.nodes.order[:min(5, len(p.nodes.order))] {
					if other == withheld {
						continue
					}
					if rec, err := find(&path{Nodes: p.nodes, only: rest, other: p.nodes.bytes[other]}); rec != nil || !errors.As(err, &node) || node.Missing || node.Node != withheld {
						t.Fatalf("%d keys, another node: %v, %v", n, rec, err)
					}
				}
			}
		}
	}
}

// A leaf whose bytes have the right hash is refused at a place that its keys do
// not belong to, whatever a branch says of their number.
func TestLeafOfAnotherPlace(t *testing.T) {
	p := publish(t, testRecords(5000))
	all := &allowed{[]string{"secret"}, []string{"live"}}
	type standing struct {
		n  *node
		at place
	}
	var leaves []standing
	walkNodes(t, p.tree, p.nodes, func(n *node, at place) {
		if !n.branch() && n.count > 0 {
			leaves = append(leaves, standing{n, at})
		}
	})
	for _, a := range leaves[:40] {
		for _, b := range leaves[:40] {
			wrong := b.at
			wrong.count = a.at.count
			if _, err := parseNode(a.n.hash, p.nodes.bytes[a.n.hash], wrong, all); (err == nil) != (a.n.hash == b.n.hash) {
				t.Fatalf("a leaf at another's place: %v", err)
			}
		}
	}
}

// What two bundles differ in is what was changed between them.
func TestDiff(t *testing.T) {
	records := testRecords(900)
	before := publish(t, slices.Clone(records))
	changed := slices.Clone(records)
	changed[5].Status = Revoked
	changed[6].Tenant = "other"
	changed = append(changed[:100], changed[101:]...)
	added := testRecords(901)[900]
	changed = append(changed, added)
	after := publish(t, slices.Clone(changed))
	d, err := Diff(before.open(t), after.open(t))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, c := range d.Changes {
		switch {
		case c.Before == nil:
			got[c.After.KeyID] = "added"
		case c.After == nil:
			got[c.Before.KeyID] = "removed"
		default:
			got[c.After.KeyID] = c.Before.Status.String() + " " + c.After.Status.String()
		}
	}
	want := map[string]string{
		records[5].KeyID: "active revoked", records[6].KeyID: "active active", records[100].KeyID: "removed", added.KeyID: "added",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || d.Nodes < 2 || d.Nodes > 6 || d.Bytes == 0 {
		t.Errorf("%v, %d nodes of %d bytes", got, d.Nodes, d.Bytes)
	}
	if d, err := Diff(before.open(t), before.open(t)); err != nil || len(d.Changes)+d.Nodes != 0 {
		t.Errorf("the same: %+v, %v", d, err)
	}
	if !slices.IsSortedFunc(d.Changes, func(a, b Change) int { return bytes.Compare(a.digest(), b.digest()) }) {
		t.Error("the changes are in no order")
	}
}

// The signatures of several signers are joined, each once; and the recovery from
// a stolen publisher's key: its manifests count for nothing once the policy note
// does not list it.
func TestMergeNotes(t *testing.T) {
	p := publish(t, testRecords(2))
	text := p.pub.Note.Text()
	var signed [][]byte
	for _, s := range p.signers {
		one, err := SignPolicyNote(p.pub.Note, s)
		if err != nil {
			t.Fatal(err)
		}
		signed = append(signed, one)
	}
	merged, err := MergeNotes(signed[0], signed[1], signed[0])
	if err != nil || bytes.Count(merged, []byte("\n— ")) != 2 || !bytes.HasPrefix(merged, text) {
		t.Fatalf("%s, %v", merged, err)
	}
	if _, err := Republish(merged, p.pub.Compiled, p.trust(t, 2)); err != nil {
		t.Error(err)
	}
	twice, err := MergeNotes(signed[0], signed[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Republish(twice, p.pub.Compiled, p.trust(t, 2)); err == nil {
		t.Error("one signature twice counts as two")
	}
	for name, list := range map[string][][]byte{
		"unsigned":     {text},
		"another text": {signed[0], bytes.Replace(signed[1], []byte("name test"), []byte("name tost"), 1)},
		"cut":          {signed[0][:len(signed[0])-1]},
	} {
		if _, err := MergeNotes(list...); err == nil {
			t.Errorf("%s: merged", name)
		}
	}
	n, err := ParsePolicyNote(merged)
	if err != nil || n.text() != string(text) {
		t.Errorf("%+v, %v", n, err)
	}
}
