package control

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/publicsuffix"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// mistaken says what nobody can mean of what a new key asks for: it would do nothing,
// or more than it seems. What edges would refuse, and what the policy does not grant, is
// said elsewhere. A key that is rolled keeps what it was given.
func mistaken(p *policy.Policy, k *Key) error {
	for _, s := range k.IPs {
		if err := mistakenIP(s); err != nil {
			return err
		}
	}
	for _, s := range k.Referrers {
		if err := mistakenReferrer(s); err != nil {
			return err
		}
	}
	kind := p.KindIndex(k.Kind)
	for _, s := range k.Endpoints {
		if err := mistakenEndpoint(p, kind, s); err != nil {
			return err
		}
	}
	if len(k.Scopes) == 0 && p.Kinds[kind].Scoped && !freeRoute(p, kind) {
		return fmt.Errorf("keys of kind %q can do only what their scopes permit, and none is given: name scopes out of %q", k.Kind, p.Grants.Scopes)
	}
	return nil
}

// mistakenIP refuses a prefix of everyone, an address of nobody, and a prefix that is
// wider than it looks.
func mistakenIP(s string) error {
	meant, err := policy.ParseIPs([]string{s})
	if err != nil {
		return err
	}
	if meant[0].Bits() == 0 {
		return fmt.Errorf("prefix %q is every address: leave it out, or name those that the key may be used from", s)
	}
	if meant[0].IsSingleIP() && meant[0].Addr().IsUnspecified() {
		return fmt.Errorf("address %q is nobody's: leave it out, or name those that the key may be used from", s)
	}
	if prefix, err := netip.ParsePrefix(s); err == nil && prefix.Masked() != prefix {
		return fmt.Errorf("prefix %q stands for %s: write that, or the address %s alone", s, prefix.Masked(), prefix.Addr())
	}
	return nil
}

// mistakenReferrer refuses a wildcard below a name under which anybody gets a name.
func mistakenReferrer(s string) error {
	_, domain, ok := strings.Cut(s, "://*.")
	if !ok {
		return nil
	}
	domain = shape.HostName(strings.ToLower(domain))
	if suffix, _ := publicsuffix.PublicSuffix(domain); suffix == domain {
		return fmt.Errorf("referrer %q: anybody can have a name below %s: name the site, like https://*.example.com", s, domain)
	}
	return nil
}

// mistakenEndpoint refuses a pattern that matches no request that a key of the kind
// can make.
func mistakenEndpoint(p *policy.Policy, kind int, s string) error {
	_, path, ok := strings.Cut(s, " ")
	if !ok {
		path = s
	}
	if err := policy.CheckWildcards(path); err != nil {
		return fmt.Errorf("endpoint %q: %w", s, err)
	}
	e, err := policy.ParseEndpoint(s)
	if err != nil {
		return err
	}
	if !p.Reaches(kind, e) {
		return fmt.Errorf("endpoint %q is on no route of policy %q that keys of kind %q may call: those are %q", s, p.Name, p.Kinds[kind].Name, patterns(p, kind))
	}
	return nil
}

// patterns are those of the routes that a kind of key may call.
func patterns(p *policy.Policy, kind int) (list []string) {
	for i := range p.Routes {
		if r := &p.Routes[i]; !r.Public && r.Kinds.Has(kind) {
			list = append(list, r.Patterns...)
		}
	}
	return list
}

// freeRoute says whether there is something that a key of a scoped kind can do without
// a scope.
func freeRoute(p *policy.Policy, kind int) bool {
	for i := range p.Routes {
		r := &p.Routes[i]
		for m := range r.Demands {
			if d := &r.Demands[m]; !r.Public && r.Kinds.Has(kind) && r.Methods.Has(shape.Method(m)) && (d.Free || d.OwnKey != "") {
				return true
			}
		}
	}
	return false
}

// times refuses a life that never is.
func (n *NewKey) times(now time.Time) error {
	switch {
	case n.Expires == nil:
		return nil
	case !n.Expires.After(now):
		return fmt.Errorf("expiry %s is past", n.Expires.Format(time.RFC3339))
	case n.NotBefore != nil && !n.Expires.After(*n.NotBefore):
		return fmt.Errorf("the key would expire at %s, before it begins at %s: it would never work", n.Expires.Format(time.RFC3339), n.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// maxName is the most characters in a key's name.
const maxName = 200

// texts refuses an API key in what is stored in clear, and a name that a terminal would
// not show as it is.
func (n *NewKey) texts(g *credential.Grammar) error {
	for what, list := range map[string][]string{
		"name": {n.Name}, "kind": {n.Kind}, "environment": {n.Environment}, "tenant": {n.Tenant}, "scope": n.Scopes,
		"IP address": n.IPs, "referrer": n.Referrers, "endpoint": n.Endpoints,
	} {
		for _, s := range list {
			if g.Within(s) {
				return fmt.Errorf("the %s holds an API key, and would be stored in clear: leave it out, and roll or revoke that key", what)
			}
		}
	}
	if len(n.Name) > maxName || strings.ContainsFunc(n.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("the name has a character that cannot be shown, or more than %d bytes: choose a plain one", maxName)
	}
	return nil
}

var errEnded = errors.New("the end is past, and the old key would cease to work at once: leave --end out, or if you want that, `keys revoke` it after it is rolled")
