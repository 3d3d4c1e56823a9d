package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
)

// NewKey is what a caller asks for.
type NewKey struct {
	Name        string
	Kind        string
	Environment string
	Tenant      string
	Scopes      []string
	// AllScopes grants every scope that the policy declares by name.
	AllScopes bool
	NotBefore *time.Time
	Expires   *time.Time
	IPs       []string
	Referrers []string
	Endpoints []string
}

// statuses that the store keeps.
var (
	active     = bundle.Active.String()
	deprecated = bundle.Deprecated.String()
	revoked    = bundle.Revoked.String()
)

// statusExpired is what [Bundle.List] says of a key past its end.
const statusExpired = "expired"

// Create makes a key and publishes it. The API key is returned once and kept
// nowhere, unless its kind is public.
func (b *Bundle) Create(ctx context.Context, n NewKey) (*Key, credential.Secret, error) {
	k, secret, err := b.make(n)
	if err != nil {
		return nil, credential.Secret{}, err
	}
	err = b.change(ctx, func(tx Tx) error { return tx.Insert(k) })
	return k, secret, err
}

// make makes a key that the policy lets a caller have.
func (b *Bundle) make(n NewKey) (*Key, credential.Secret, error) {
	fail := func(format string, args ...any) (*Key, credential.Secret, error) {
		return nil, credential.Secret{}, fmt.Errorf(format, args...)
	}
	p := b.Policy
	i := p.KindIndex(n.Kind)
	if i < 0 {
		return fail("kind %q is not in policy %q: use one of %q", n.Kind, p.Name, kindNames(p))
	}
	kind := p.Kinds[i]
	if n.Environment == "" && len(p.Environments) == 1 {
		n.Environment = p.Environments[0]
	}
	if !slices.Contains(p.Environments, n.Environment) {
		return fail("environment %q is not in policy %q: use one of %q", n.Environment, p.Name, p.Environments)
	}
	if n.Tenant == "" && p.Grants.TenantRequired {
		return fail("policy %q wants a tenant for every key", p.Name)
	}
	scopes, err := b.grant(kind, n)
	if err != nil {
		return fail("%w", err)
	}
	if err := restrictable(p, n); err != nil {
		return fail("%w", err)
	}
	now := b.home.now().UTC().Truncate(time.Second)
	if n.Expires != nil && !n.Expires.After(now) {
		return fail("expiry %s is past", n.Expires.Format(time.RFC3339))
	}
	secret, err := credential.Generate(kind.Prefix, n.Environment)
	if err != nil {
		return fail("%w", err)
	}
	k := &Key{
		ID: kind.IDPrefix + "_" + credential.RandomText(16), Name: n.Name, Kind: n.Kind, Environment: n.Environment,
		Tenant: n.Tenant, Scopes: scopes, Status: active, Digest: secret.Digest(), Hint: secret.Hint(), Created: now,
		NotBefore: n.NotBefore, Expires: n.Expires, IPs: n.IPs, Referrers: n.Referrers, Endpoints: n.Endpoints,
	}
	if kind.Public {
		k.Public = secret.Reveal()
	}
	rec, err := k.record()
	if err != nil {
		return fail("%w", err)
	}
	if err := rec.Check(); err != nil {
		return fail("%w", err)
	}
	return k, secret, nil
}

func kindNames(p *policy.Policy) (names []string) {
	for _, k := range p.Kinds {
		names = append(names, k.Name)
	}
	return names
}

// grant checks the scopes that a key asks for against what the policy grants.
func (b *Bundle) grant(kind policy.Kind, n NewKey) ([]string, error) {
	g := b.Policy.Grants
	scopes := slices.Clone(n.Scopes)
	if n.AllScopes {
		for _, s := range g.Scopes {
			if hasParam(s) {
				return nil, fmt.Errorf("scope %q has no end of values: name the scopes one by one", s)
			}
			scopes = append(scopes, s)
		}
	}
	if !kind.Scoped {
		if len(scopes) > 0 {
			return nil, fmt.Errorf("keys of kind %q need no scopes: leave them out", kind.Name)
		}
		return nil, nil
	}
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	for _, s := range scopes {
		if slices.Contains(g.Never, s) {
			return nil, fmt.Errorf("scope %q is never granted", s)
		}
		if !slices.ContainsFunc(g.Scopes, func(declared string) bool {
			_, ok := policy.MatchScope(declared, s)
			return ok && !hasParam(s)
		}) {
			return nil, fmt.Errorf("scope %q is not in policy %q: it declares %q", s, b.Policy.Name, g.Scopes)
		}
	}
	if len(scopes) < g.Min || g.Max > 0 && len(scopes) > g.Max {
		return nil, fmt.Errorf("%d scopes are given, and policy %q wants %s", len(scopes), b.Policy.Name, bounds(g.Min, g.Max))
	}
	return scopes, nil
}

func hasParam(scope string) bool { return strings.Contains(scope, "{") }

func bounds(low, high int) string {
	switch {
	case high == 0:
		return fmt.Sprintf("at least %d", low)
	case low == high:
		return fmt.Sprintf("exactly %d", low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// restrictable refuses restrictions that the policy does not offer.
func restrictable(p *policy.Policy, n NewKey) error {
	for _, r := range []struct {
		name string
		bit  policy.Restrictions
		used bool
	}{
		{"IP addresses", policy.RestrictIP, len(n.IPs) > 0},
		{"referrers", policy.RestrictReferrer, len(n.Referrers) > 0},
		{"endpoints", policy.RestrictEndpoint, len(n.Endpoints) > 0},
	} {
		if r.used && p.Restrictions&r.bit == 0 {
			return fmt.Errorf("policy %q does not limit keys to %s: add it to the policy's restrictions", p.Name, r.name)
		}
	}
	return nil
}

// record is the key as edges get it.
func (k *Key) record() (bundle.Record, error) {
	status, err := bundle.ParseStatus(k.Status)
	if err != nil {
		return bundle.Record{}, fmt.Errorf("key %s: %w", k.ID, err)
	}
	r := bundle.Record{
		Digest: k.Digest, KeyID: k.ID, Kind: k.Kind, Environment: k.Environment, Tenant: k.Tenant,
		Status: status, Scopes: k.Scopes, NotBefore: unix(k.NotBefore), Expires: unix(k.Expires),
	}
	return r, r.Restrict(k.IPs, k.Referrers, k.Endpoints)
}

func unix(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// view reads the bundle's keys.
func (b *Bundle) view(ctx context.Context, read func(Tx) error) error {
	store, err := b.home.store()
	if err != nil {
		return err
	}
	return store.View(ctx, b.Name, read)
}

// List returns all keys, oldest first.
func (b *Bundle) List(ctx context.Context) (keys []*Key, err error) {
	err = b.view(ctx, func(tx Tx) error {
		return tx.Each(func(k *Key) error {
			b.describe(k)
			keys = append(keys, k)
			return nil
		})
	})
	return keys, err
}

// Show returns one key.
func (b *Bundle) Show(ctx context.Context, id string) (k *Key, err error) {
	err = b.view(ctx, func(tx Tx) error {
		k, err = tx.Get(id)
		return err
	})
	if err == nil {
		b.describe(k)
	}
	return k, err
}

// describe fills in what follows from time.
func (b *Bundle) describe(k *Key) {
	now := b.home.now()
	if k.Status != revoked && k.Expires != nil && !now.Before(*k.Expires) {
		k.Status = statusExpired
	}
	if b.Policy == nil {
		return
	}
	rotate := b.Policy.Grants.Rotate // due, too, where nobody knows the key's age
	k.Rotate = rotate > 0 && k.Status == active && now.Sub(k.Created) >= rotate
}

// Roll makes a key like another one, which goes on working and is marked as
// deprecated; with a hard end it also expires then.
func (b *Bundle) Roll(ctx context.Context, id string, end *time.Time) (*Key, credential.Secret, error) {
	var k *Key
	var secret credential.Secret
	err := b.change(ctx, func(tx Tx) error {
		old, err := tx.Get(id)
		if err != nil {
			return err
		}
		b.describe(old)
		if old.Status == revoked || old.Status == statusExpired {
			return fmt.Errorf("key %s is %s and cannot be rolled: create a new one", id, old.Status)
		}
		if end != nil && old.Expires != nil && old.Expires.Before(*end) {
			end = nil // it ends earlier by itself
		}
		if k, secret, err = b.make(NewKey{
			Name: old.Name, Kind: old.Kind, Environment: old.Environment, Tenant: old.Tenant, Scopes: old.Scopes,
			NotBefore: old.NotBefore, Expires: old.Expires, IPs: old.IPs, Referrers: old.Referrers, Endpoints: old.Endpoints,
		}); err != nil {
			return err
		}
		k.Replaces = old.ID
		if err := tx.Insert(k); err != nil {
			return err
		}
		return tx.SetStatus(old.ID, deprecated, end, nil)
	})
	return k, secret, err
}

// Revoke ends a key at once and for ever. Revoking twice is no error. It needs no
// policy: see [Home.Published].
func (b *Bundle) Revoke(ctx context.Context, id string) (*Key, error) {
	var k *Key
	err := b.change(ctx, func(tx Tx) (err error) {
		if k, err = tx.Get(id); err != nil || k.Status == revoked {
			return err
		}
		now := b.home.now().UTC().Truncate(time.Second)
		k.Status, k.Revoked = revoked, &now
		return tx.SetStatus(id, revoked, nil, &now)
	})
	return k, err
}
