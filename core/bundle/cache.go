package bundle

import (
	"sync/atomic"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/cache"
)

// Cache keeps verified nodes, bounded in bytes, for any number of bundles. It
// is safe for concurrent use; a nil Cache keeps nothing. A branch is kept when
// it is read; a leaf only once a key was found in it, so that made-up keys
// cannot push out what real ones need.
type Cache struct {
	nodes *cache.Cache[*node]
}

// usualNode is what a node usually costs, in bytes.
const usualNode = 7 << 10

// NewCache returns a Cache of at most limit bytes.
func NewCache(limit int64) (*Cache, error) {
	nodes, err := cache.New[*node](limit, usualNode, 64)
	if err != nil {
		return nil, err
	}
	return &Cache{nodes}, nil
}

// Wait returns when everything kept so far can be found, for tests and hosts
// without threads.
func (c *Cache) Wait() {
	if c != nil {
		c.nodes.Wait()
	}
}

// Used is how many bytes of its limit the cache takes.
func (c *Cache) Used() (used, limit int64) { return c.nodes.Used(), c.nodes.Limit() }

// get gives a node that is good at a place, and under a policy note that allows what
// allowed says: a note that narrows it is obeyed for nodes read before, too.
func (c *Cache) get(hash Hash, at place, allowed *allowed) *node {
	if c == nil {
		return nil
	}
	n, ok := c.nodes.Get(hash[:])
	if !ok || n.hash != hash || !n.standsAt(at) || !n.branch() && !n.allowed.same(allowed) {
		return nil
	}
	return n
}

// standsAt says whether a node that was verified at one place is good at
// another too. A node of the same hash elsewhere is read and verified anew.
func (n *node) standsAt(at place) bool {
	if n.depth != at.depth || n.count != at.count {
		return false
	}
	if n.branch() || n.count == 0 {
		return true
	}
	return at.covers((*credential.Digest)(n.digest(0)))
}

func (c *Cache) put(n *node) {
	if c != nil && n.data != nil || c != nil && n.branch() {
		c.nodes.Set(n.hash[:], n, n.size()+cache.Entry)
	}
}

// pins keeps a bundle's branches of the first twelve bits: every lookup of an
// unknown key needs them.
type pins struct {
	root  atomic.Pointer[node]
	below [1 << branchBits]atomic.Pointer[node]
}

func (p *pins) slot(at place) *atomic.Pointer[node] {
	switch at.depth {
	case 0:
		return &p.root
	case branchBits:
		return &p.below[bitsAt(&at.prefix, 0, branchBits)]
	}
	return nil
}

func (p *pins) get(hash Hash, at place) *node {
	slot := p.slot(at)
	if slot == nil {
		return nil
	}
	if n := slot.Load(); n != nil && n.hash == hash {
		return n
	}
	return nil
}

func (p *pins) put(n *node, at place) bool {
	slot := p.slot(at)
	if slot == nil {
		return false
	}
	slot.Store(n)
	return true
}
