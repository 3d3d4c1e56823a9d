package policy

import (
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// overrides are the headers by which some upstreams let a client replace the
// method that was decided on (R20).
var overrides = []string{"x-http-method-override", "x-http-method", "x-method-override"}

// identityPrefix covers every identity header of this and later versions.
const identityPrefix = "keystile-"

// maxStripName is the longest name in a stripSet.
const maxStripName = 64

// stripSet holds the folded names of the header fields that a client must not
// get past the edge: credentials, identity and method override.
type stripSet struct {
	first   [256]bool // first characters of the names, in both cases
	lengths uint64
	names   map[string]stripKind
}

type stripKind uint8

const (
	stripAlways stripKind = iota + 1
	stripToken            // kept where the route demands the customer token
)

func newStripSet(p *Policy) stripSet {
	s := stripSet{names: make(map[string]stripKind)}
	for _, n := range overrides {
		s.add(n, stripAlways)
	}
	if p.Token != nil {
		s.add(p.Token.Source.Header, stripToken)
	}
	for _, src := range p.Sources {
		s.add(src.Header, stripAlways)
	}
	id := p.Identity
	for _, n := range id.list() {
		if *n != "" {
			s.add(*n, stripAlways)
		}
	}
	s.first['k'], s.first['K'] = true, true // identityPrefix
	return s
}

func (s *stripSet) add(name string, kind stripKind) {
	name = foldName(name)
	s.names[name] = kind
	s.first[name[0]] = true
	if c := name[0]; c >= 'a' && c <= 'z' {
		s.first[c-0x20] = true
	}
	s.lengths |= 1 << (len(name) % 64)
}

// Strips says whether the header field called name is removed from every
// request that goes on: a source or token header, an identity header or a
// method override, under any name that is equal once case is folded and "_"
// and "." are read as "-" (R20, R32, R36). keepToken keeps the customer
// token's own header, under its own name.
func (p *Policy) Strips(name string, keepToken bool) bool {
	s := &p.strips
	if name == "" || !s.first[name[0]] && !isSeparator(name[0]) {
		return false
	}
	if s.lengths&(1<<(len(name)%64)) == 0 && !hasFoldPrefix(name, identityPrefix) {
		return false
	}
	if hasFoldPrefix(name, identityPrefix) {
		return true
	}
	if len(name) > maxStripName {
		return false
	}
	var buf [maxStripName]byte
	for i := range len(name) {
		buf[i] = foldChar(name[i])
	}
	switch s.names[string(buf[:len(name)])] {
	case stripAlways:
		return true
	case stripToken:
		return !keepToken || !ascii.EqualFold(name, p.Token.Source.Header)
	}
	return false
}

// CleanConnection returns a Connection line without the options that name a
// header of [Policy.Strips], so that a proxy behind cannot be told to drop what
// the edge sets (R37).
func (p *Policy) CleanConnection(line string) string {
	if line == "keep-alive" || line == "close" || line == "Upgrade" {
		return line
	}
	var kept []string
	dropped := false
	for option := range strings.SplitSeq(line, ",") {
		if p.Strips(strings.Trim(option, " \t"), false) {
			dropped = true
			continue
		}
		kept = append(kept, option)
	}
	if !dropped {
		return line
	}
	return strings.TrimSpace(strings.Join(kept, ","))
}

func foldName(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = foldChar(c)
	}
	return string(b)
}

func foldChar(c byte) byte {
	switch {
	case c == '_' || c == '.':
		return '-'
	case c-'A' < 26:
		return c | 0x20
	}
	return c
}

func isSeparator(c byte) bool { return c == '_' || c == '.' || c == '-' }

func hasFoldPrefix(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if foldChar(s[i]) != prefix[i] {
			return false
		}
	}
	return true
}
