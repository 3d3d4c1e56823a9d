package core

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/cache"
	"github.com/keystile/keystile/core/policy"
)

// entry is a record made ready for decisions under one policy. It is immutable
// but for its stamp. With many keys in use an entry comes from far away in
// memory, so that what every request reads stands together at the beginning.
type entry struct {
	digest credential.Digest
	// generation is that of the snapshot under which the leaf was last confirmed.
	generation atomic.Uint64
	policies   uint64 // of the snapshot that it was decoded under
	expires    int64  // Unix seconds, never for no end
	notBefore  int64
	kind       uint8 // as in the policy
	env        uint8
	status     bundle.Status
	limited    bool   // to addresses, origins or endpoints
	scopes     string // as in key
	upstream   []Header

	key       Key
	leaf      bundle.Hash // where the record stands
	record    *bundle.Record
	referrers []policy.ReferrerPattern
	endpoints []policy.EndpointPattern
}

const never = math.MaxInt64

// usualEntry is what an entry usually costs, in bytes.
const usualEntry = 1280

// cost is what an entry takes on the heap, in bytes, with the allocations of its
// record and its place in the cache.
func (e *entry) cost() int64 {
	r := e.record
	n := cache.Entry + int(unsafe.Sizeof(*e)) + int(unsafe.Sizeof(*r)) + int(unsafe.Sizeof(Header{}))*cap(e.upstream) +
		int(unsafe.Sizeof(netip.Prefix{}))*cap(r.Prefixes) + int(unsafe.Sizeof(policy.Limit{}))*cap(r.Limits) +
		int(unsafe.Sizeof(policy.ReferrerPattern{}))*cap(e.referrers) + 256*len(e.endpoints)
	for _, s := range []string{r.KeyID, r.Kind, r.Environment, r.Tenant, e.scopes} {
		n += allocated(len(s))
	}
	for _, list := range [][]string{r.Scopes, r.Referrers, r.Endpoints} {
		n += int(unsafe.Sizeof("")) * cap(list)
		for _, s := range list {
			n += allocated(len(s))
		}
	}
	return int64(n)
}

// allocated is about what a string of n bytes takes: small ones come in steps.
func allocated(n int) int { return (n + 15) &^ 15 }

// lookup is the first part of step 5: the key's record, from the cache if it
// was confirmed under this request's snapshot, else from the tree. Absence is
// never cached, nor is a decision (R50).
func (c *check) lookup() policy.Reason {
	c.digest = credential.DigestOf(c.key)
	if c.standsFor != nil {
		c.digest = *c.standsFor
	}
	e, err := c.find()
	if err != nil {
		return c.lookupFailed(err)
	}
	if e == nil {
		return policy.Unknown
	}
	if int(e.kind) != c.kind || int(e.env) != c.env {
		// The signed record decides, and it says something else than the key's
		// prefix (R47).
		c.decision.Err = fmt.Errorf("key %s: its record is of kind %s in %s, and its prefix says otherwise", e.key.ID, e.key.Kind, e.key.Environment)
		return policy.Internal
	}
	c.entry = e
	return policy.OK
}

func (c *check) lookupFailed(err error) policy.Reason {
	if err == errBadKey {
		return policy.BadFormat
	}
	c.decision.Err = err
	var node *bundle.NodeError
	if errors.As(err, &node) && node.Missing {
		return policy.NodeMissing
	}
	return policy.Internal
}

// errBadKey is a key whose body is not in the grammar. Only keys that were
// issued are in the cache, so that one found there needs no look at its body.
var errBadKey = errors.New("not in the grammar")

func (c *check) find() (*entry, error) {
	s, d := c.snapshot, &c.digest
	e, ok := c.verifier.records.Get(d[:])
	if ok && sameDigest(&e.digest, d) && e.policies == s.policies {
		if e.generation.Load() == s.generation {
			return e, nil
		}
		// The tree has changed. If the leaf has not, the record has not.
		leaf, err := s.bundle.Leaf(d, c.verifier.nodes)
		if err != nil {
			return nil, err
		}
		if leaf == e.leaf {
			e.generation.Store(s.generation)
			return e, nil
		}
	}
	if !s.bundle.Policy.Grammar().Valid(c.key) {
		return nil, errBadKey
	}
	rec, leaf, err := s.bundle.Find(d, c.verifier.nodes)
	if err != nil || rec == nil {
		return nil, err
	}
	if e, err = newEntry(rec, s, leaf); err != nil {
		return nil, err
	}
	c.verifier.records.Set(d[:], e, e.cost())
	return e, nil
}

func newEntry(rec *bundle.Record, s *snapshot, leaf bundle.Hash) (*entry, error) {
	e := &entry{
		digest: rec.Digest, policies: s.policies, expires: never, notBefore: rec.NotBefore, status: rec.Status,
		limited: len(rec.Prefixes)+len(rec.Referrers)+len(rec.Endpoints) > 0, record: rec, leaf: leaf,
		key: Key{
			ID: rec.KeyID, Kind: rec.Kind, Environment: rec.Environment, Tenant: rec.Tenant,
			Scopes: strings.Join(rec.Scopes, " "), Status: rec.Status,
		},
	}
	e.generation.Store(s.generation)
	kind, env := s.bundle.Policy.KindIndex(rec.Kind), slices.Index(s.bundle.Policy.Environments, rec.Environment)
	if kind < 0 || env < 0 {
		return nil, fmt.Errorf("key %s: kind %q or environment %q is not in the policy", rec.KeyID, rec.Kind, rec.Environment)
	}
	e.kind, e.env, e.scopes = uint8(kind), uint8(env), e.key.Scopes
	if rec.Expires != 0 {
		e.expires = rec.Expires
	}
	for _, r := range rec.Referrers {
		o, err := policy.ParseReferrer(r)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", rec.KeyID, err)
		}
		e.referrers = append(e.referrers, o)
	}
	for _, p := range rec.Endpoints {
		pattern, err := policy.ParseEndpoint(p)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", rec.KeyID, err)
		}
		e.endpoints = append(e.endpoints, pattern)
	}
	id := &s.bundle.Policy.Identity
	scopes := e.key.Scopes
	if !s.bundle.Policy.Kinds[kind].Scoped {
		scopes = ""
	}
	deprecated := ""
	if rec.Status == bundle.Deprecated {
		deprecated = "true"
	}
	for _, h := range [...]Header{
		{Name: id.KeyID, Value: rec.KeyID},
		{Name: id.Kind, Value: rec.Kind},
		{Name: id.Environment, Value: rec.Environment},
		{Name: id.Tenant, Value: rec.Tenant},
		{Name: id.Scopes, Value: scopes},
		{Name: id.Deprecated, Value: deprecated},
	} {
		if h.Name != "" && h.Value != "" {
			e.upstream = append(e.upstream, h)
		}
	}
	return e, nil
}

// sameDigest compares in constant time: a record that a cache gave for half of
// the digest is not yet the key's.
func sameDigest(a, b *credential.Digest) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// Hold is what a request under way rests on: the key that it was allowed by.
type Hold struct {
	digest  credential.Digest
	expires int64     // Unix seconds, never for no end
	seen    *snapshot // under which the key was last found good
}

// Hold is what the request rests on; ok is false for one that needed no key.
func (d *Decision) Hold() (h Hold, ok bool) {
	if d.Outcome != Allow || d.entry == nil {
		return Hold{}, false
	}
	return Hold{digest: d.entry.digest, expires: d.entry.expires}, true
}

// Holds says whether the key is still there, not revoked and not expired. Where that
// cannot be found out at present the request goes on: new ones are denied.
func (v *Verifier) Holds(h *Hold) bool {
	if s := v.current.Load(); s != nil && s != h.seen {
		rec, _, err := s.bundle.Find(&h.digest, v.nodes)
		switch {
		case err != nil:
		case rec == nil || rec.Status == bundle.Revoked:
			return false
		default:
			h.seen, h.expires = s, never
			if rec.Expires != 0 {
				h.expires = rec.Expires
			}
		}
	}
	return v.config.Now().Unix() < h.expires
}
