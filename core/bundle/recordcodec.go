package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/keystile/keystile/core/internal/wire"
	"github.com/keystile/keystile/core/policy"
)

// Field numbers of a record. Bit 0 makes a field critical; bit 1 says that its
// value is a list of references to the leaf's strings.
const (
	fieldTenant    = 3
	fieldNotBefore = 5
	fieldScopes    = 7
	fieldExpires   = 9
	fieldReferrers = 11
	fieldPrefixes  = 13
	fieldEndpoints = 15
	fieldLimits    = 17
	// 19 to 31 are reserved for limits.

	criticalBit = 1
	refsBit     = 2
)

// strings calls use with every text that the record refers to in its leaf.
func (r *Record) strings(use func(string)) {
	use(r.Kind)
	use(r.Environment)
	if r.Tenant != "" {
		use(r.Tenant)
	}
	for _, list := range [][]string{r.Scopes, r.Referrers, r.Endpoints} {
		for _, s := range list {
			use(s)
		}
	}
}

// size is the record's encoded size with the strings that it refers to.
func (r *Record) size() int {
	n := len(r.Digest)
	r.strings(func(s string) { n += len(s) })
	return n + len(r.appendBody(nil, func(string) uint64 { return 0 }))
}

// appendBody appends all but the digest. index gives a string's place in the
// leaf.
func (r *Record) appendBody(b []byte, index func(string) uint64) []byte {
	b = append(b, byte(r.Status))
	b = wire.AppendInt(b, index(r.Kind))
	b = wire.AppendInt(b, index(r.Environment))
	b = wire.AppendBytes(b, r.KeyID)
	refs := func(b []byte, field uint64, list ...string) []byte {
		if len(list) == 0 {
			return b
		}
		var v []byte
		for _, s := range list {
			v = wire.AppendInt(v, index(s))
		}
		return wire.AppendField(b, field, v)
	}
	number := func(b []byte, field uint64, n int64) []byte {
		if n == 0 {
			return b
		}
		return wire.AppendField(b, field, wire.AppendUint(nil, uint64(n)))
	}
	if r.Tenant != "" {
		b = refs(b, fieldTenant, r.Tenant)
	}
	b = number(b, fieldNotBefore, r.NotBefore)
	b = refs(b, fieldScopes, r.Scopes...)
	b = number(b, fieldExpires, r.Expires)
	b = refs(b, fieldReferrers, r.Referrers...)
	if len(r.Prefixes) > 0 {
		v, _ := encodePrefixes(r.Prefixes) // checked by Check
		b = wire.AppendField(b, fieldPrefixes, v)
	}
	b = refs(b, fieldEndpoints, r.Endpoints...)
	if len(r.Limits) > 0 {
		var v []byte
		for _, l := range r.Limits {
			v = wire.AppendInt(v, l.Requests)
			v = wire.AppendInt(v, uint64(l.Window/time.Second))
		}
		b = wire.AppendField(b, fieldLimits, v)
	}
	return b
}

// encodePrefixes writes each prefix as its family (4 or 6), its length in bits
// and the bytes that these bits reach into, ascending.
func encodePrefixes(list []netip.Prefix) ([]byte, error) {
	var out, last []byte
	for _, p := range list {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" || p != p.Masked() {
			return nil, fmt.Errorf("prefix %v: use an IPv4 or IPv6 prefix without host bits, not a mapped one", p)
		}
		family, addr := byte(6), p.Addr().AsSlice()
		if p.Addr().Is4() {
			family = 4
		}
		b := append([]byte{family, byte(p.Bits())}, addr[:(p.Bits()+7)/8]...)
		if last != nil && bytes.Compare(last, b) >= 0 {
			return nil, fmt.Errorf("prefix %v is out of order or given twice", p)
		}
		out, last = append(out, b...), b
	}
	return out, nil
}

func decodePrefixes(v []byte) (list []netip.Prefix, err error) {
	r := wire.NewReader(v)
	for r.More() {
		family, bits := r.Byte(), int(r.Byte())
		var addr netip.Addr
		switch {
		case family == 4 && bits <= 32:
			var a [4]byte
			copy(a[:], r.Take((bits+7)/8))
			addr = netip.AddrFrom4(a)
		case family == 6 && bits <= 128:
			var a [16]byte
			copy(a[:], r.Take((bits+7)/8))
			addr = netip.AddrFrom16(a)
		default:
			r.Fail("an IP prefix is neither of IPv4 nor of IPv6")
		}
		list = append(list, netip.PrefixFrom(addr, bits))
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	// The order, and bits beyond the prefix, are what encodePrefixes checks.
	again, err := encodePrefixes(list)
	if err == nil && !bytes.Equal(again, v) {
		err = errors.New("an IP prefix has host bits")
	}
	return list, err
}

// bodyReader walks over records' bodies, one after the other. It validates
// everything; with rec it also fills that in.
type bodyReader struct {
	strings  [][]byte
	used     []bool // set for each string referred to
	rec      *Record
	critical uint64 // an unknown critical field, or 0
	referred int    // bytes of the strings referred to, each time
}

// read returns the indexes of the body's kind and environment.
func (b *bodyReader) read(body []byte) (kind, environment int, err error) {
	r := wire.NewReader(body)
	status := Status(r.Byte())
	kind, environment = b.ref(&r), b.ref(&r)
	id := r.Bytes(maxKeyID)
	if r.Err() == nil && (status < Active || status > Revoked || len(id) == 0) {
		r.Fail("a record has no known status, or no ID")
	}
	if b.rec != nil && r.Err() == nil {
		b.rec.Status, b.rec.KeyID = status, string(id)
		b.rec.Kind, b.rec.Environment = string(b.strings[kind]), string(b.strings[environment])
	}
	last := uint64(0)
	for r.More() {
		number := r.Int(1 << 20)
		value := r.Bytes(maxRecord)
		if r.Err() != nil {
			break
		}
		if number <= last {
			r.Fail("field %d is not in ascending order", number)
			break
		}
		last = number
		if err := b.field(number, value); err != nil {
			r.Fail("field %d: %w", number, err)
		}
	}
	return kind, environment, r.Err()
}

// ref reads a reference: the index of a string.
func (b *bodyReader) ref(r *wire.Reader) int {
	i := int(r.Int(wire.MaxInt))
	if i >= len(b.strings) {
		r.Fail("a record refers to a string that is not there")
	}
	if r.Err() != nil {
		return 0
	}
	if b.used != nil {
		b.used[i] = true
	}
	b.referred += len(b.strings[i])
	return i
}

func (b *bodyReader) field(number uint64, value []byte) error {
	if len(value) == 0 {
		return errors.New("it is empty: empty fields are left out")
	}
	var refs []string
	if number&refsBit != 0 {
		r := wire.NewReader(value)
		last := -1
		for r.More() {
			i := b.ref(&r)
			if r.Err() == nil && i <= last {
				return errors.New("its references are not in ascending order")
			}
			last = i
			if b.rec != nil && r.Err() == nil {
				refs = append(refs, string(b.strings[i]))
			}
		}
		if err := r.Err(); err != nil {
			return err
		}
	}
	return b.known(number, value, refs)
}

func (b *bodyReader) known(number uint64, value []byte, refs []string) error {
	switch number {
	case fieldTenant:
		if b.rec != nil && len(refs) != 1 {
			return errors.New("a key has one tenant")
		}
		if b.rec != nil {
			b.rec.Tenant = refs[0]
		}
	case fieldNotBefore, fieldExpires:
		n, err := wire.ParseUint(value)
		if err != nil || n > 1<<62 {
			return errors.New("not a time")
		}
		if b.rec != nil && number == fieldNotBefore {
			b.rec.NotBefore = int64(n)
		} else if b.rec != nil {
			b.rec.Expires = int64(n)
		}
	case fieldScopes:
		if b.rec != nil {
			b.rec.Scopes = refs
		}
	case fieldReferrers:
		if b.rec != nil {
			b.rec.Referrers = refs
		}
	case fieldEndpoints:
		if b.rec != nil {
			b.rec.Endpoints = refs
		}
	case fieldPrefixes:
		list, err := decodePrefixes(value)
		if b.rec != nil {
			b.rec.Prefixes = list
		}
		return err
	case fieldLimits:
		return b.limits(value)
	default:
		if number&criticalBit != 0 {
			b.critical = number
		}
	}
	return nil
}

func (b *bodyReader) limits(value []byte) error {
	r := wire.NewReader(value)
	for r.More() {
		requests, seconds := r.Int(wire.MaxInt), r.Int(1<<32)
		if r.Err() == nil && (requests == 0 || seconds == 0) {
			return errors.New("a limit of nothing")
		}
		if b.rec != nil {
			b.rec.Limits = append(b.rec.Limits, policy.Limit{Requests: requests, Window: time.Duration(seconds) * time.Second})
		}
	}
	return r.Err()
}
