package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// newKey makes a key that the policy lets a caller have.
func (r *Keyring) newKey(n NewKey) (*Key, credential.Secret, error) {
	now := r.bundle.home.now().UTC().Truncate(time.Second)
	kind, err := allow(r.bundle.Policy, &n, now)
	if err != nil {
		return nil, credential.Secret{}, err
	}
	secret, err := credential.Generate(kind.Prefix, n.Environment)
	if err != nil {
		return nil, credential.Secret{}, err
	}
	k := &Key{
		ID: kind.IDPrefix + "_" + credential.RandomText(16), Name: n.Name, Kind: n.Kind, Environment: n.Environment,
		Tenant: n.Tenant, Scopes: n.Scopes, Status: active, Digest: secret.Digest(), Hint: secret.Hint(), Created: now,
		NotBefore: n.NotBefore, Expires: n.Expires, IPs: n.IPs, Referrers: n.Referrers, Endpoints: n.Endpoints,
	}
	if kind.Public {
		k.Public = secret.Reveal()
	}
	if err := check(k); err != nil {
		return nil, credential.Secret{}, err
	}
	return k, secret, nil
}

// allow says why the policy does not let a caller have n. Else n has all its
// scopes, and its environment where there is only one.
func allow(p *policy.Policy, n *NewKey, now time.Time) (kind policy.Kind, err error) {
	if err := n.texts(p.Grammar()); err != nil {
		return kind, err
	}
	i := p.KindIndex(n.Kind)
	if i < 0 && n.Kind == "" {
		return kind, fmt.Errorf("name the key's kind: one of %q", kindNames(p))
	}
	if i < 0 {
		return kind, fmt.Errorf("kind %q is not in policy %q: use one of %q", n.Kind, p.Name, kindNames(p))
	}
	kind = p.Kinds[i]
	if n.Environment == "" && len(p.Environments) == 1 {
		n.Environment = p.Environments[0]
	}
	if !slices.Contains(p.Environments, n.Environment) {
		if n.Environment == "" {
			return kind, fmt.Errorf("name the key's environment: one of %q", p.Environments)
		}
		return kind, fmt.Errorf("environment %q is not in policy %q: use one of %q", n.Environment, p.Name, p.Environments)
	}
	if n.Tenant == "" && p.Grants.TenantRequired {
		return kind, fmt.Errorf("policy %q wants a tenant for every key", p.Name)
	}
	if n.Scopes, err = grant(p, kind, n); err != nil {
		return kind, err
	}
	if err := plainNames(n); err != nil {
		return kind, err
	}
	if err := restrictable(p, n); err != nil {
		return kind, err
	}
	return kind, n.times(now)
}

// plainNames refuses a tenant or a scope that holds "%": edges compare both with
// parts of a path whose escapes they have decoded.
func plainNames(n *NewKey) error {
	for _, s := range append([]string{n.Tenant}, n.Scopes...) {
		if strings.Contains(s, "%") {
			return fmt.Errorf("%q holds %%: edges compare it with decoded paths, so choose a name without it", s)
		}
	}
	return nil
}

// check says why edges would refuse a key.
func check(k *Key) error {
	r, err := k.Record()
	if err != nil {
		return err
	}
	return r.Check()
}

func kindNames(p *policy.Policy) (names []string) {
	for _, k := range p.Kinds {
		names = append(names, k.Name)
	}
	return names
}

// grant returns the scopes that a key asks for, if the policy grants them.
func grant(p *policy.Policy, kind policy.Kind, n *NewKey) ([]string, error) {
	scopes := slices.Clone(n.Scopes)
	if n.AllScopes {
		for _, s := range p.Grants.Scopes {
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
	for i, s := range n.Scopes {
		if slices.Contains(n.Scopes[:i], s) {
			return nil, fmt.Errorf("scope %q is given twice: is another one missing?", s)
		}
	}
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	return scopes, grantable(p, scopes)
}

// grantable says which of the scopes the policy does not grant.
func grantable(p *policy.Policy, scopes []string) error {
	g := &p.Grants
	for _, s := range scopes {
		if slices.Contains(g.Never, s) {
			return fmt.Errorf("scope %q is never granted", s)
		}
		if !slices.ContainsFunc(g.Scopes, func(declared string) bool {
			_, ok := policy.MatchScope(declared, s)
			return ok && !hasParam(s)
		}) {
			return fmt.Errorf("scope %q is not in policy %q: it declares %q", s, p.Name, g.Scopes)
		}
	}
	if len(scopes) < g.Min || g.Max > 0 && len(scopes) > g.Max {
		return fmt.Errorf("%d scopes are given, and policy %q wants %s", len(scopes), p.Name, bounds(g.Min, g.Max))
	}
	return nil
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
func restrictable(p *policy.Policy, n *NewKey) error {
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
