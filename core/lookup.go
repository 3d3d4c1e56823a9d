package core

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
)

// entry is a record made ready for decisions. It is immutable but for its
// stamp.
type entry struct {
	digest    credential.Digest
	record    *bundle.Record
	key       Key
	upstream  []Header
	origins   []policy.Origin
	endpoints []policy.EndpointPattern

	leaf     bundle.Hash // where the record stands
	policies uint64      // of the snapshot that it was decoded under
	// generation is that of the snapshot under which the leaf was last confirmed.
	generation atomic.Uint64
}

// averageEntry is a usual cost of an entry in bytes, to choose the number of
// counters by.
const averageEntry = 1 << 10

// cost is about what an entry takes in memory, in bytes: the fixed parts with
// their allocations, and the variable ones.
func (e *entry) cost() int64 {
	r := e.record
	n := 704 + 2*len(r.KeyID) + 2*len(r.Tenant) + len(r.Kind) + len(r.Environment) + 2*len(e.key.Scopes) + 64*len(e.upstream)
	for _, list := range [][]string{r.Scopes, r.Referrers, r.Endpoints} {
		for _, s := range list {
			n += 16 + len(s)
		}
	}
	return int64(n + 32*len(r.Prefixes) + 64*len(e.origins) + 256*len(e.endpoints))
}

// lookup is the first part of step 5: the key's record, from the cache if it
// was confirmed under this request's snapshot, else from the tree. Absence is
// never cached, nor is a decision (R50).
func (c *check) lookup() policy.Reason {
	scratch := digests.Get().(*credential.Digest)
	defer digests.Put(scratch)
	*scratch = credential.DigestOf(c.key)
	e, err := c.find(scratch)
	var node *bundle.NodeError
	switch {
	case errors.As(err, &node) && node.Missing:
		c.decision.Err = err
		return policy.NodeMissing
	case err != nil:
		c.decision.Err = err
		return policy.Internal
	case e == nil:
		return policy.Unknown
	}
	if p := c.snapshot.Policy; e.record.Kind != p.Kinds[c.kind].Name || e.record.Environment != p.Environments[c.env] {
		// The signed record decides, and it says something else than the key's
		// prefix (R47).
		c.decision.Err = fmt.Errorf("key %s: its record is of kind %s in %s, and its prefix says otherwise", e.record.KeyID, e.record.Kind, e.record.Environment)
		return policy.Internal
	}
	c.entry = e
	return policy.OK
}

// digests are scratch space: what goes through the cache's function values
// would be allocated at every request.
var digests = sync.Pool{New: func() any { return new(credential.Digest) }}

func (c *check) find(d *credential.Digest) (*entry, error) {
	s := c.snapshot
	e, ok := c.records.Get(d[:])
	if ok && sameDigest(&e.digest, d) && e.policies == s.policies {
		if e.generation.Load() == s.generation {
			return e, nil
		}
		// The tree has changed. If the leaf has not, the record has not.
		leaf, err := s.Leaf(d, c.nodes)
		if err != nil {
			return nil, err
		}
		if leaf == e.leaf {
			e.generation.Store(s.generation)
			return e, nil
		}
	}
	rec, leaf, err := s.Find(d, c.nodes)
	if err != nil || rec == nil {
		return nil, err
	}
	if e, err = newEntry(rec, s, leaf); err != nil {
		return nil, err
	}
	c.records.Set(d[:], e, e.cost())
	return e, nil
}

func newEntry(rec *bundle.Record, s *snapshot, leaf bundle.Hash) (*entry, error) {
	e := &entry{
		digest: rec.Digest, record: rec, leaf: leaf, policies: s.policies,
		key: Key{
			ID: rec.KeyID, Kind: rec.Kind, Environment: rec.Environment, Tenant: rec.Tenant,
			Scopes: strings.Join(rec.Scopes, " "), Status: rec.Status,
		},
	}
	e.generation.Store(s.generation)
	for _, r := range rec.Referrers {
		o, err := policy.ParseOrigin(r)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", rec.KeyID, err)
		}
		e.origins = append(e.origins, o)
	}
	for _, p := range rec.Endpoints {
		pattern, err := policy.ParseEndpoint(p)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", rec.KeyID, err)
		}
		e.endpoints = append(e.endpoints, pattern)
	}
	i := s.Policy.KindIndex(rec.Kind)
	if i < 0 {
		return nil, fmt.Errorf("key %s: kind %q is not in the policy", rec.KeyID, rec.Kind)
	}
	id := &s.Policy.Identity
	scopes := e.key.Scopes
	if !s.Policy.Kinds[i].Scoped {
		scopes = ""
	}
	deprecated := ""
	if rec.Status == bundle.Deprecated {
		deprecated = "true"
	}
	for _, h := range []Header{
		{id.KeyID, rec.KeyID},
		{id.Kind, rec.Kind},
		{id.Environment, rec.Environment},
		{id.Tenant, rec.Tenant},
		{id.Scopes, scopes},
		{id.Deprecated, deprecated},
	} {
		if h.Name != "" && h.Value != "" {
			e.upstream = append(e.upstream, h)
		}
	}
	return e, nil
}
