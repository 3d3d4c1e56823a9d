package policy

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/shape"
)

// typePolicy and policyFormat begin every compiled policy.
const (
	typePolicy   = 3
	policyFormat = 1
)

// Limits of a compiled policy, for [Decode].
const (
	MaxSize = 1 << 20 // bytes
	maxList = 4096    // entries
	maxText = 64 << 10
)

// Encode returns the compiled policy: the same bytes for the same policy. Its
// form is described in core/bundle/FORMAT.md.
func (p *Policy) Encode() []byte { return append([]byte{typePolicy, policyFormat}, write(p.fields)...) }

// Decode reads a compiled policy whose signature has been verified. It refuses
// everything that [Policy.Encode] does not write.
func Decode(b []byte) (*Policy, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("compiled policy has %d bytes: at most %d are possible", len(b), MaxSize)
	}
	if len(b) < 2 || b[0] != typePolicy {
		return nil, errors.New("not a compiled policy")
	}
	if b[1] != policyFormat {
		return nil, fmt.Errorf("compiled policy has format %d, and this version reads %d: update the edge", b[1], policyFormat)
	}
	p := new(Policy)
	err := read(b[2:], p.fields)
	if err == nil {
		err = p.Init()
	}
	if err == nil {
		err = p.checkIndexes()
	}
	if err != nil {
		return nil, fmt.Errorf("compiled policy: %w", err)
	}
	return p, nil
}

// What follows describes the compiled policy, for both directions. An edge refuses
// an odd number that it does not know, and passes over an even one. These numbers are
// kept for limits: 12, 14 and 16 of a kind (burst, concurrency, name), 20 of a route
// (cost), 23 of the policy (limits by tenant, route and client).

func (p *Policy) fields(c *codec) {
	c.text(1, &p.Name)
	list(c, 3, &p.Sources, sourceFields)
	c.flag(5, &p.Imported)
	list(c, 7, &p.Kinds, (*Kind).fields)
	list(c, 9, &p.Environments, func(name *string, c *codec) { c.text(1, name) })
	list(c, 11, &p.Hosts, (*Host).fields)
	list(c, 13, &p.Routes, (*Route).fields)
	number(c, 15, &p.UnroutedKinds)
	number(c, 16, &p.Restrictions)
	optional(c, 17, &p.CustomerToken, (*CustomerToken).fields)
	c.message(19, p.Identity.fields)
	array(c, 21, p.Answers[:], [2]string{"answers", "reasons"}, (*Answer).fields)
	c.message(22, p.Grants.fields)
}

func sourceFields(s *credential.Source, c *codec) {
	c.text(1, &s.Name)
	c.text(3, &s.Scheme)
	c.after(func() error {
		s.Header = textproto.CanonicalMIMEHeaderKey(s.Name)
		if s.Name == "" || strings.ContainsAny(s.Name, " :\r\n") {
			return fmt.Errorf("%q is no header name", s.Name)
		}
		return nil
	})
}

func (k *Kind) fields(c *codec) {
	c.text(1, &k.Name)
	c.text(3, &k.Prefix)
	c.text(4, &k.IDPrefix)
	c.flag(5, &k.Scoped)
	c.flag(6, &k.Public)
	number(c, 8, &k.Limit.Requests)
	c.seconds(10, &k.Limit.Window)
}

func (h *Host) fields(c *codec) {
	c.text(1, &h.Name)
	number(c, 3, &h.Environments)
}

func (r *Route) fields(c *codec) {
	c.text(1, &r.Name)
	c.texts(3, &r.Patterns)
	number(c, 5, &r.Methods)
	c.flag(7, &r.Public)
	c.flag(9, &r.CORS)
	number(c, 11, &r.Kinds)
	c.text(13, &r.TenantParam)
	c.flag(15, &r.Token)
	c.flag(17, &r.OnlyUnlimited)
	array(c, 19, r.Demands[:], [2]string{"demands", "methods"}, (*Demand).fields)
}

func (d *Demand) fields(c *codec) {
	c.flag(1, &d.Free)
	c.text(3, &d.OwnKey)
	list(c, 5, &d.Scopes, func(s *ScopeDemand, c *codec) {
		c.text(1, &s.Scope)
		c.texts(3, &s.Accept)
	})
}

func (t *CustomerToken) fields(c *codec) {
	c.text(1, &t.Source.Name)
	c.text(3, &t.Source.Scheme)
	c.text(5, &t.Algorithm)
	c.text(7, &t.Issuer)
	c.text(9, &t.Audience)
	list(c, 11, &t.Binds, (*Bind).fields)
	c.text(13, &t.KeySet)
	list(c, 15, &t.Keys, func(k *TokenKey, c *codec) {
		c.text(1, &k.ID)
		c.bytes(3, &k.PKIX)
	})
	c.after(func() error {
		t.Source.Header = textproto.CanonicalMIMEHeaderKey(t.Source.Name)
		return nil
	})
}

func (b *Bind) fields(c *codec) {
	c.text(1, &b.Claim)
	number(c, 3, &b.To)
	c.after(func() error {
		if b.To < BindTenant || b.To > BindKeyID {
			return fmt.Errorf("claim %q is bound to nothing known", b.Claim)
		}
		return nil
	})
}

func (id *Identity) fields(c *codec) {
	for i, name := range id.list() {
		c.text(uint64(2*i+1), name)
	}
}

func (a *Answer) fields(c *codec) {
	number(c, 1, &a.Status)
	c.text(3, &a.ContentType)
	c.text(5, &a.Challenge)
	c.text(7, &a.Body)
	list(c, 9, &a.ByRequired, func(r *RequiredBody, c *codec) {
		c.text(1, &r.Scope)
		c.text(3, &r.Body)
	})
}

func (g *Grants) fields(c *codec) {
	c.texts(2, &g.Scopes)
	c.texts(4, &g.Never)
	number(c, 6, &g.Min)
	number(c, 8, &g.Max)
	c.seconds(10, &g.Rotate)
	c.flag(12, &g.TenantRequired)
}

// checkIndexes refuses indexes that point nowhere.
func (p *Policy) checkIndexes() error {
	kinds, environments := All(len(p.Kinds)), All(len(p.Environments))
	if p.UnroutedKinds&^kinds != 0 {
		return errors.New("unrouted kinds name a kind that is not there")
	}
	for _, h := range p.Hosts {
		if h.Environments&^environments != 0 || h.Environments == 0 {
			return fmt.Errorf("host %q names an environment that is not there, or none", h.Name)
		}
	}
	for i := range p.Routes {
		r := &p.Routes[i]
		if r.Kinds&^kinds != 0 || r.Methods >= 1<<shape.NumMethods {
			return fmt.Errorf("route %q names a kind or method that is not there", r.Name)
		}
	}
	return nil
}
