package bundle

import (
	"bytes"
	"reflect"
	"slices"

	"github.com/keystile/keystile/core/credential"
)

// Change is a key in which two bundles differ. Before or After is nil where only
// the other bundle has the key.
type Change struct{ Before, After *Record }

// Difference is what an edge that has one bundle has to learn for another.
type Difference struct {
	// Nodes are the later bundle's nodes that the earlier one does not have, and
	// Bytes their size.
	Nodes, Bytes int
	// Changes are ascending by digest.
	Changes []Change
}

// Diff reads and verifies the trees of two bundles and compares them.
func Diff(before, after *Bundle) (*Difference, error) {
	known := make(map[Hash]bool)
	if err := before.Nodes(func(h Hash, _ []byte) error { known[h] = true; return nil }); err != nil {
		return nil, err
	}
	d := new(Difference)
	kept := make(map[Hash]bool)
	changed := make(map[credential.Digest]*Change)
	err := after.eachNode(func(n *node, raw []byte) error {
		if known[n.hash] {
			kept[n.hash] = true
			return nil
		}
		d.Nodes++
		d.Bytes += len(raw)
		return n.records(func(r *Record) error {
			changed[r.Digest] = &Change{After: r}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	err = before.eachNode(func(n *node, _ []byte) error {
		if kept[n.hash] {
			return nil
		}
		return n.records(func(r *Record) error {
			c := changed[r.Digest]
			switch {
			case c == nil:
				changed[r.Digest] = &Change{Before: r}
			case reflect.DeepEqual(r, c.After):
				delete(changed, r.Digest)
			default:
				c.Before = r
			}
			return nil
		})
	})
	for _, c := range changed {
		d.Changes = append(d.Changes, *c)
	}
	slices.SortFunc(d.Changes, func(a, b Change) int { return bytes.Compare(a.digest(), b.digest()) })
	return d, err
}

func (c *Change) digest() []byte {
	if c.After != nil {
		return c.After.Digest[:]
	}
	return c.Before.Digest[:]
}
