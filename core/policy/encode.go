package policy

import (
	"errors"
	"fmt"
	"net/textproto"
	"strings"
	"time"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/wire"
)

// Type and Format begin every compiled policy.
const (
	Type   = 3
	Format = 1
)

// Limits of a compiled policy, for [Decode].
const (
	MaxSize = 1 << 20 // bytes
	maxList = 4096    // entries
	maxText = 64 << 10
)

// Encode returns the compiled policy: the same bytes for the same policy. Its
// form is described in core/bundle/FORMAT.md.
func (p *Policy) Encode() []byte {
	var m message
	m.text(1, p.Name)
	m.list(3, len(p.Sources), func(i int, m *message) {
		m.text(1, p.Sources[i].Name)
		m.text(3, p.Sources[i].Scheme)
	})
	m.flag(5, p.Imported)
	m.list(7, len(p.Kinds), func(i int, m *message) {
		k := p.Kinds[i]
		m.text(1, k.Name)
		m.text(3, k.Prefix)
		m.text(4, k.IDPrefix)
		m.flag(5, k.Scoped)
		m.flag(6, k.Public)
		m.uint(8, k.Limit.Requests)
		m.uint(10, uint64(k.Limit.Window/time.Second))
	})
	m.list(9, len(p.Environments), func(i int, m *message) { m.text(1, p.Environments[i]) })
	m.list(11, len(p.Hosts), func(i int, m *message) {
		m.text(1, p.Hosts[i].Name)
		m.uint(3, uint64(p.Hosts[i].Environments))
	})
	m.list(13, len(p.Routes), func(i int, m *message) { p.Routes[i].encode(m) })
	m.uint(15, uint64(p.UnroutedKinds))
	m.uint(16, uint64(p.Restrictions))
	if p.Token != nil {
		m.message(17, p.Token.encode)
	}
	m.message(19, func(m *message) {
		for i, name := range p.Identity.list() {
			m.text(uint64(2*i+1), *name)
		}
	})
	m.list(21, len(p.Answers), func(i int, m *message) {
		a := &p.Answers[i]
		m.uint(1, uint64(a.Status))
		m.text(3, a.ContentType)
		m.text(5, a.Challenge)
		m.text(7, a.Body)
		m.list(9, len(a.ByRequired), func(i int, m *message) {
			m.text(1, a.ByRequired[i].Scope)
			m.text(3, a.ByRequired[i].Body)
		})
	})
	m.message(22, func(m *message) {
		g := &p.Grants
		m.texts(2, g.Scopes)
		m.texts(4, g.Never)
		m.uint(6, uint64(g.Min))
		m.uint(8, uint64(g.Max))
		m.uint(10, uint64(g.Rotate/time.Second))
		m.flag(12, g.TenantRequired)
	})
	return append([]byte{Type, Format}, m...)
}

func (r *Route) encode(m *message) {
	m.text(1, r.Name)
	m.texts(3, r.Patterns)
	m.uint(5, uint64(r.Methods))
	m.flag(7, r.Public)
	m.flag(9, r.CORS)
	m.uint(11, uint64(r.Kinds))
	m.text(13, r.TenantParam)
	m.flag(15, r.Token)
	m.flag(17, r.Unrestricted)
	m.list(19, len(r.Demands), func(i int, m *message) {
		d := &r.Demands[i]
		m.flag(1, d.Free)
		m.text(3, d.OwnKey)
		m.list(5, len(d.Scopes), func(i int, m *message) {
			m.text(1, d.Scopes[i].Scope)
			m.texts(3, d.Scopes[i].Accept)
		})
	})
}

func (t *Token) encode(m *message) {
	m.text(1, t.Source.Name)
	m.text(3, t.Source.Scheme)
	m.text(5, t.Algorithm)
	m.text(7, t.Issuer)
	m.text(9, t.Audience)
	m.list(11, len(t.Binds), func(i int, m *message) {
		m.text(1, t.Binds[i].Claim)
		m.uint(3, uint64(t.Binds[i].To))
	})
	m.text(13, t.KeySet)
	m.list(15, len(t.Keys), func(i int, m *message) {
		m.text(1, t.Keys[i].ID)
		m.text(3, string(t.Keys[i].PKIX))
	})
}

// message is a list of fields being written. A field with the zero value is
// left out, so that there is one encoding.
type message []byte

func (m *message) text(n uint64, s string) {
	if s != "" {
		*m = wire.AppendField(*m, n, s)
	}
}

func (m *message) uint(n, v uint64) {
	if v != 0 {
		*m = wire.AppendField(*m, n, wire.AppendUint(nil, v))
	}
}

func (m *message) flag(n uint64, on bool) {
	if on {
		m.uint(n, 1)
	}
}

func (m *message) message(n uint64, fill func(*message)) {
	var inner message
	fill(&inner)
	m.text(n, string(inner))
}

func (m *message) list(n uint64, count int, fill func(i int, m *message)) {
	if count == 0 {
		return
	}
	b := wire.AppendInt(nil, uint64(count))
	for i := range count {
		var inner message
		fill(i, &inner)
		b = wire.AppendBytes(b, inner)
	}
	*m = wire.AppendField(*m, n, b)
}

func (m *message) texts(n uint64, list []string) {
	if len(list) == 0 {
		return
	}
	b := wire.AppendInt(nil, uint64(len(list)))
	for _, s := range list {
		b = wire.AppendBytes(b, s)
	}
	*m = wire.AppendField(*m, n, b)
}

// Decode reads a compiled policy whose signature has been verified. It refuses
// everything that [Policy.Encode] does not write.
func Decode(b []byte) (*Policy, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("compiled policy has %d bytes: at most %d are possible", len(b), MaxSize)
	}
	if len(b) < 2 || b[0] != Type {
		return nil, errors.New("not a compiled policy")
	}
	if b[1] != Format {
		return nil, fmt.Errorf("compiled policy has format %d, and this version reads %d: update the edge", b[1], Format)
	}
	p := new(Policy)
	err := fields(b[2:], p.field)
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

func (p *Policy) field(n uint64, v value) (bool, error) {
	switch n {
	case 1:
		return v.text(&p.Name)
	case 3:
		return v.list(func(v value) error {
			var s credential.Source
			err := v.source(&s)
			p.Sources = append(p.Sources, s)
			return err
		})
	case 5:
		return v.flag(&p.Imported)
	case 7:
		return v.list(p.decodeKind)
	case 9:
		return v.list(func(v value) error {
			var name string
			err := fields(v, func(n uint64, v value) (bool, error) {
				if n == 1 {
					return v.text(&name)
				}
				return false, nil
			})
			p.Environments = append(p.Environments, name)
			return err
		})
	case 11:
		return v.list(func(v value) error {
			var h Host
			err := fields(v, func(n uint64, v value) (bool, error) {
				switch n {
				case 1:
					return v.text(&h.Name)
				case 3:
					return uintField(v, &h.Environments)
				}
				return false, nil
			})
			p.Hosts = append(p.Hosts, h)
			return err
		})
	case 13:
		return v.list(func(v value) error {
			p.Routes = append(p.Routes, Route{})
			return fields(v, p.Routes[len(p.Routes)-1].field)
		})
	case 15:
		return uintField(v, &p.UnroutedKinds)
	case 16:
		return uintField(v, &p.Restrictions)
	case 17:
		p.Token = new(Token)
		return true, p.Token.decode(v)
	case 19:
		names := p.Identity.list()
		return true, fields(v, func(n uint64, v value) (bool, error) {
			if n&1 == 1 && n/2 < uint64(len(names)) {
				return v.text(names[n/2])
			}
			return false, nil
		})
	case 21:
		i := 0
		ok, err := v.list(func(v value) error {
			if i >= NumReasons {
				return errors.New("more answers than reasons")
			}
			a := &p.Answers[i]
			i++
			return fields(v, a.field)
		})
		if err == nil && i != NumReasons {
			err = fmt.Errorf("%d answers for %d reasons", i, NumReasons)
		}
		return ok, err
	case 22:
		return true, p.Grants.decode(v)
	}
	return false, nil
}

func (p *Policy) decodeKind(v value) error {
	var k Kind
	var seconds uint64
	err := fields(v, func(n uint64, v value) (bool, error) {
		switch n {
		case 1:
			return v.text(&k.Name)
		case 3:
			return v.text(&k.Prefix)
		case 4:
			return v.text(&k.IDPrefix)
		case 5:
			return v.flag(&k.Scoped)
		case 6:
			return v.flag(&k.Public)
		case 8:
			return uintField(v, &k.Limit.Requests)
		case 10:
			return uintField(v, &seconds)
		}
		return false, nil
	})
	k.Limit.Window = time.Duration(min(seconds, 1<<32)) * time.Second
	p.Kinds = append(p.Kinds, k)
	return err
}

func (r *Route) field(n uint64, v value) (bool, error) {
	switch n {
	case 1:
		return v.text(&r.Name)
	case 3:
		return v.texts(&r.Patterns)
	case 5:
		return uintField(v, &r.Methods)
	case 7:
		return v.flag(&r.Public)
	case 9:
		return v.flag(&r.CORS)
	case 11:
		return uintField(v, &r.Kinds)
	case 13:
		return v.text(&r.TenantParam)
	case 15:
		return v.flag(&r.Token)
	case 17:
		return v.flag(&r.Unrestricted)
	case 19:
		m := 0
		ok, err := v.list(func(v value) error {
			if m >= NumMethods {
				return errors.New("more demands than methods")
			}
			d := &r.Demands[m]
			m++
			return fields(v, d.field)
		})
		if err == nil && m != NumMethods {
			err = fmt.Errorf("%d demands for %d methods", m, NumMethods)
		}
		return ok, err
	}
	return false, nil
}

func (d *Demand) field(n uint64, v value) (bool, error) {
	switch n {
	case 1:
		return v.flag(&d.Free)
	case 3:
		return v.text(&d.OwnKey)
	case 5:
		return v.list(func(v value) error {
			var s ScopeDemand
			err := fields(v, func(n uint64, v value) (bool, error) {
				switch n {
				case 1:
					return v.text(&s.Scope)
				case 3:
					return v.texts(&s.Accept)
				}
				return false, nil
			})
			d.Scopes = append(d.Scopes, s)
			return err
		})
	}
	return false, nil
}

func (t *Token) decode(v value) error {
	source := &t.Source
	return fields(v, func(n uint64, v value) (bool, error) {
		switch n {
		case 1:
			ok, err := v.text(&source.Name)
			source.Header = textproto.CanonicalMIMEHeaderKey(source.Name)
			return ok, err
		case 3:
			return v.text(&source.Scheme)
		case 5:
			return v.text(&t.Algorithm)
		case 7:
			return v.text(&t.Issuer)
		case 9:
			return v.text(&t.Audience)
		case 11:
			return v.list(func(v value) error {
				var b Bind
				err := fields(v, func(n uint64, v value) (bool, error) {
					switch n {
					case 1:
						return v.text(&b.Claim)
					case 3:
						return uintField(v, &b.To)
					}
					return false, nil
				})
				if err == nil && (b.To < BindTenant || b.To > BindKeyID) {
					err = fmt.Errorf("claim %q is bound to nothing known", b.Claim)
				}
				t.Binds = append(t.Binds, b)
				return err
			})
		case 13:
			return v.text(&t.KeySet)
		case 15:
			return v.list(func(v value) error {
				var k TokenKey
				err := fields(v, func(n uint64, v value) (bool, error) {
					switch n {
					case 1:
						return v.text(&k.ID)
					case 3:
						k.PKIX = v
						return true, nil
					}
					return false, nil
				})
				t.Keys = append(t.Keys, k)
				return err
			})
		}
		return false, nil
	})
}

func (a *Answer) field(n uint64, v value) (bool, error) {
	switch n {
	case 1:
		return uintField(v, &a.Status)
	case 3:
		return v.text(&a.ContentType)
	case 5:
		return v.text(&a.Challenge)
	case 7:
		return v.text(&a.Body)
	case 9:
		return v.list(func(v value) error {
			var r RequiredBody
			err := fields(v, func(n uint64, v value) (bool, error) {
				switch n {
				case 1:
					return v.text(&r.Scope)
				case 3:
					return v.text(&r.Body)
				}
				return false, nil
			})
			a.ByRequired = append(a.ByRequired, r)
			return err
		})
	}
	return false, nil
}

func (g *Grants) decode(v value) error {
	var seconds uint64
	err := fields(v, func(n uint64, v value) (bool, error) {
		switch n {
		case 2:
			return v.texts(&g.Scopes)
		case 4:
			return v.texts(&g.Never)
		case 6:
			return uintField(v, &g.Min)
		case 8:
			return uintField(v, &g.Max)
		case 10:
			return uintField(v, &seconds)
		case 12:
			return v.flag(&g.TenantRequired)
		}
		return false, nil
	})
	g.Rotate = time.Duration(min(seconds, 1<<32)) * time.Second
	return err
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
		if r.Kinds&^kinds != 0 || r.Methods >= 1<<NumMethods {
			return fmt.Errorf("route %q names a kind or method that is not there", r.Name)
		}
	}
	return nil
}

// value is the value of one field.
type value []byte

// fields reads a message. All its parts are bounded by the whole's size.
func fields(b []byte, use func(n uint64, v value) (bool, error)) error {
	r := wire.NewReader(b)
	return r.Fields(MaxSize, func(n uint64, v []byte) (bool, error) {
		if len(v) == 0 {
			return true, errors.New("an empty field is left out, not written")
		}
		return use(n, v)
	})
}

func (v value) text(to *string) (bool, error) {
	r := wire.NewReader(wire.AppendBytes(nil, v))
	*to = r.Text(maxText)
	return true, r.Done()
}

func (v value) flag(to *bool) (bool, error) {
	if len(v) != 1 || v[0] != 1 {
		return true, errors.New("a flag is one byte of 1, or left out")
	}
	*to = true
	return true, nil
}

func uintField[T ~uint8 | ~uint32 | ~uint64 | ~int](v value, to *T) (bool, error) {
	n, err := wire.ParseUint(v)
	*to = T(n)
	if err == nil && (uint64(*to) != n || n == 0 || n > 1<<62) {
		err = fmt.Errorf("number %d is out of range", n)
	}
	return true, err
}

func (v value) list(each func(value) error) (bool, error) {
	r := wire.NewReader(v)
	count := r.Int(maxList)
	if count == 0 && r.Err() == nil {
		return true, errors.New("an empty list is left out, not written")
	}
	for i := uint64(0); i < count && r.Err() == nil; i++ {
		item := r.Bytes(MaxSize)
		if r.Err() != nil {
			break
		}
		if err := each(item); err != nil {
			return true, fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	return true, r.Done()
}

func (v value) texts(to *[]string) (bool, error) {
	return v.list(func(item value) error {
		var s string
		_, err := item.text(&s)
		*to = append(*to, s)
		return err
	})
}

func (v value) source(s *credential.Source) error {
	err := fields(v, func(n uint64, v value) (bool, error) {
		switch n {
		case 1:
			return v.text(&s.Name)
		case 3:
			return v.text(&s.Scheme)
		}
		return false, nil
	})
	s.Header = textproto.CanonicalMIMEHeaderKey(s.Name)
	if err == nil && (s.Name == "" || strings.ContainsAny(s.Name, " :\r\n")) {
		err = fmt.Errorf("%q is no header name", s.Name)
	}
	return err
}
