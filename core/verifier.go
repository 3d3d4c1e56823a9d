// Package core decides requests: it is the one verifier that the Caddy module
// and the Envoy filter share.
//
// Make a [Verifier], give it a bundle with [Verifier.Activate], and call
// [Verifier.Verify] for every request. The hosts translate their request into a
// [Request] and a [Decision] back into their terms; they decide nothing.
// [Verifier.Explain] says why a request is decided as it is.
//
// The package does no I/O, takes the clock as a function and imports no host.
package core

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/internal/cache"
	"github.com/keystile/keystile/core/internal/customer"
	"github.com/keystile/keystile/core/policy"
)

// Config is what an operator sets. The zero value is ready to use.
type Config struct {
	// RecordCache, NodeCache and TokenCache bound the caches in bytes; 0 is the
	// default of 64, 64 and 8 MiB.
	RecordCache, NodeCache, TokenCache int64
	// ClockSkew is how far this clock and the publisher's may differ; 0 is
	// [bundle.DefaultClockSkew].
	ClockSkew time.Duration
	// MaxAge denies everything once the bundle was signed longer ago than this;
	// 0 leaves it at the bundle's own expiry.
	MaxAge time.Duration
	// MinVersion is the lowest bundle that is accepted, for edges that cannot keep
	// what they have accepted across restarts.
	MinVersion bundle.MinVersion
	// TLSTerminators are socket peers that end TLS in front of this edge. A
	// request from one counts as HTTPS if its only X-Forwarded-Proto line is
	// "https" or "wss" (R3).
	TLSTerminators []netip.Prefix
	// Now is the clock; nil is [time.Now].
	Now func() time.Time
}

const mib = 1 << 20

// Verifier decides requests from the active bundle. It is safe for concurrent
// use.
type Verifier struct {
	config  Config
	records *cache.Cache[*entry]
	nodes   *bundle.Cache
	tokens  *customer.Verifier

	activate sync.Mutex
	current  atomic.Pointer[snapshot]
}

// snapshot is what one request sees from its start to its end.
type snapshot struct {
	bundle     *bundle.Bundle
	generation uint64 // grows when the tree or the policy changes
	policies   uint64 // grows when the policy changes
}

// New returns a Verifier without a bundle, which denies everything. It needs no
// end: its caches go when nobody can call it any more.
func New(config Config) (*Verifier, error) {
	for _, p := range config.TLSTerminators {
		if !p.IsValid() || p.Bits() == 0 {
			return nil, fmt.Errorf("tls_terminators: %v would trust everyone: list the addresses of the proxies in front", p)
		}
	}
	if config.ClockSkew < 0 || config.MaxAge < 0 {
		return nil, errors.New("clock_skew and max_age cannot be negative")
	}
	if f := config.MinVersion; f.Version < 0 || f.PolicyVersion < 0 {
		return nil, errors.New("min_version cannot be negative")
	}
	setDefault(&config.RecordCache, 64*mib)
	setDefault(&config.NodeCache, 64*mib)
	setDefault(&config.TokenCache, 8*mib)
	setDefault(&config.ClockSkew, bundle.DefaultClockSkew)
	if config.Now == nil {
		config.Now = time.Now
	}
	v := &Verifier{config: config}
	var err error
	if v.records, err = cache.New[*entry](config.RecordCache, usualEntry, 1024); err != nil {
		return nil, fmt.Errorf("record cache: %w", err)
	}
	if v.nodes, err = bundle.NewCache(config.NodeCache); err != nil {
		return nil, fmt.Errorf("node cache: %w", err)
	}
	if v.tokens, err = customer.NewVerifier(config.TokenCache); err != nil {
		return nil, fmt.Errorf("token cache: %w", err)
	}
	return v, nil
}

func setDefault[T int64 | time.Duration](value *T, to T) {
	if *value == 0 {
		*value = to
	}
}

// Wait returns when everything cached so far can be found, for tests and for
// hosts without threads.
func (v *Verifier) Wait() {
	v.records.Wait()
	v.nodes.Wait()
}

// CacheUse is how many bytes a cache takes, and may take.
type CacheUse struct {
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit"`
}

// CacheUses are those of a verifier's caches.
type CacheUses struct {
	Records CacheUse `json:"records"`
	Nodes   CacheUse `json:"nodes"`
	Tokens  CacheUse `json:"tokens"`
}

// CacheUses says how full the caches are.
func (v *Verifier) CacheUses() (u CacheUses) {
	u.Records = CacheUse{v.records.Used(), v.records.Limit()}
	u.Nodes.Bytes, u.Nodes.Limit = v.nodes.Used()
	u.Tokens.Bytes, u.Tokens.Limit = v.tokens.Used()
	return u
}

// Check says why b cannot become the active bundle: see [bundle.Acceptance].
func (v *Verifier) Check(b *bundle.Bundle) error {
	accepts := bundle.Acceptance{MinVersion: v.config.MinVersion, ClockSkew: v.config.ClockSkew}
	var last *bundle.Mark
	if old := v.current.Load(); old != nil {
		last = &old.bundle.Mark
	}
	return accepts.Check(&b.Mark, last, v.config.Now())
}

// Activate makes b the bundle that decides, unless [Verifier.Check] refuses it:
// the active one then stays in use.
func (v *Verifier) Activate(b *bundle.Bundle) error {
	v.activate.Lock()
	defer v.activate.Unlock()
	if err := v.Check(b); err != nil {
		return err
	}
	next := &snapshot{bundle: b, generation: 1, policies: 1}
	if old := v.current.Load(); old != nil {
		next.generation, next.policies = old.generation, old.policies
		if b.PolicyNote.PolicyHash != old.bundle.PolicyNote.PolicyHash || !sameAllowed(b, old.bundle) {
			next.policies++
			next.generation++
		} else if b.Manifest.Root != old.bundle.Manifest.Root {
			next.generation++
		}
	}
	v.current.Store(next)
	return nil
}

func sameAllowed(a, b *bundle.Bundle) bool {
	return slices.Equal(a.PolicyNote.Kinds, b.PolicyNote.Kinds) && slices.Equal(a.PolicyNote.Environments, b.PolicyNote.Environments)
}

// Bundle returns the active bundle, or nil.
func (v *Verifier) Bundle() *bundle.Bundle {
	if s := v.current.Load(); s != nil {
		return s.bundle
	}
	return nil
}

// Status says why the active bundle denies everything at present, or nil.
func (v *Verifier) Status() error {
	s := v.current.Load()
	if s == nil {
		return errors.New("no bundle is active")
	}
	return s.bundle.CheckTime(v.config.Now(), v.config.ClockSkew, v.config.MaxAge)
}

// Verify decides one request, in the order of the documentation: transport,
// shape, route, credential, key, customer token, then what the key may do. The
// first failure answers. It never panics; whatever goes wrong is a denial.
func (v *Verifier) Verify(r *Request) (d Decision) {
	c := checks.Get().(*check)
	defer func() {
		if p := recover(); p != nil {
			d = c.panicked(p) // nothing of the broken check, or of its request, is used again
			return
		}
		*c = check{long: c.long[:0]}
		checks.Put(c)
	}()
	c.verifier, c.request, c.snapshot = v, r, v.current.Load()
	return c.verify()
}

// verify is the decision, with the answer of a denial.
func (c *check) verify() Decision {
	if c.snapshot != nil {
		c.decision.policy = c.snapshot.bundle.Policy
	}
	if reason := c.decide(); reason != policy.OK {
		c.decision.route, c.decision.environments = c.match.Route, c.environments
		c.decision.deny(reason, c.lines, c.match.Route)
	} else if c.request.WithID {
		c.decision.RequestID = newRequestID()
	}
	return c.decision
}

// panicked is the decision of a check that went wrong.
func (c *check) panicked(p any) Decision {
	d := Decision{policy: c.decision.policy, Err: fmt.Errorf("panic: %v", p)}
	d.deny(policy.Internal, nil, nil)
	return d
}
