// Package shape knows the one form of each part of a request's target that every
// edge and every upstream reads alike: method, host, path and query. What has
// another form is refused, never repaired.
package shape

import (
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// Path is a canonical request path, taken apart. The zero value is none; it is
// filled in by [Path.Parse].
type Path struct {
	raw    string
	has    pathClass
	count  int // segments
	starts [inlineSegments]uint16
}

const (
	// inlineSegments are those whose beginning is kept; deeper ones, which few
	// APIs have, are looked for.
	inlineSegments = 12
	maxPath        = 1<<16 - 1
)

// MayHoldKey says whether an API key could be in the path.
func (p *Path) MayHoldKey() bool { return p.has&(classUnderscore|classOther) != 0 }

// HasUpper says whether one of A–Z is in the path.
func (p *Path) HasUpper() bool { return p.has&classUpper != 0 }

// HasEscape says whether an escape is in the path.
func (p *Path) HasEscape() bool { return p.has&classOther != 0 }

// Segments is how many segments there are: one more for a slash at the end.
func (p *Path) Segments() int { return p.count }

// Segment returns the i-th segment, which is there.
func (p *Path) Segment(i int) string {
	if i+1 < len(p.starts) {
		start := p.starts[i]
		if i+1 < p.count {
			return p.raw[start : p.starts[i+1]-1]
		}
		return p.raw[start:]
	}
	rest := p.raw[p.starts[len(p.starts)-1]:]
	for skip := i - len(p.starts) + 1; skip > 0; skip-- {
		rest = rest[strings.IndexByte(rest, '/')+1:]
	}
	if end := strings.IndexByte(rest, '/'); end >= 0 {
		return rest[:end]
	}
	return rest
}

// EndsInSlash says whether there is a slash at the end that could be removed.
func (p *Path) EndsInSlash() bool { return p.count > 1 && p.raw[len(p.raw)-1] == '/' }

// WithoutSlash is the path without that slash.
func (p *Path) WithoutSlash() *Path {
	cut := *p
	cut.raw = p.raw[:len(p.raw)-1]
	cut.count--
	return &cut
}

// mayBeEscaped are the characters that may stand in a path as they are or escaped, which
// generated clients do (RFC 3986 section 3.3: sub-delims without ";", ":" and "@").
const mayBeEscaped = "!$&'()*+,=:@"

// Unescaped is the path with escapes of such characters decoded; ok is false if
// there are none.
func (p *Path) Unescaped() (plain *Path, ok bool) {
	if !p.HasEscape() {
		return nil, false
	}
	text := Unescape(p.raw)
	plain = new(Path)
	return plain, text != p.raw && plain.Parse(text)
}

// Unescape decodes the escapes in s that [Path.Unescaped] decodes.
func Unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, ok := ascii.Unhex(s[i+1], s[i+2]); ok && strings.IndexByte(mayBeEscaped, c) >= 0 {
				out = append(out, c)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Parse says whether a path is in the one form in which edge and
// upstream cannot read it differently: it begins with a slash, has no empty and
// no dot segments, and holds only characters of RFC 3986 and escapes of those
// that need one. What is not is refused, never repaired (R9–R13).
//
// It also finds the segments, so that later steps need not look.
func (p *Path) Parse(path string) (ok bool) {
	*p = Path{raw: path}
	if path == "" || path[0] != '/' || len(path) > maxPath {
		return false
	}
	var has pathClass
	count := 0
	for i := 0; i < len(path); i++ {
		class := pathClasses[path[i]]
		has |= class
		if class&(classSlash|classOther) == 0 {
			continue
		}
		if class == classSlash {
			if !canonicalSegment(path[i+1:]) {
				return false
			}
			if count < len(p.starts) {
				p.starts[count] = uint16(i + 1)
			}
			count++
			continue
		}
		if path[i] != '%' || !canonicalEscape(path[i:]) {
			return false
		}
		i += 2
	}
	p.has, p.count = has, count
	return true
}

// PathChar says whether c may stand unescaped in a path: the pchar of RFC 3986
// without ";" (R12), and the slash.
func PathChar(c byte) bool { return pathChar[c] }

var pathChar = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/") {
		t[c] = true
	}
	return t
}()

// pathClass is what a path's bytes mean to the steps of a decision.
type pathClass uint8

const (
	classPlain pathClass = 1 << iota
	classSlash
	classUpper      // A to Z: other routes are looked at without regard to case
	classUnderscore // an API key could be in the path
	classOther      // an escape, or what no path has
)

var pathClasses = func() (t [256]pathClass) {
	for i := range t {
		switch c := byte(i); {
		case c == '/':
			t[i] = classSlash
		case c == '_':
			t[i] = classUnderscore
		case ascii.IsUpper(c):
			t[i] = classUpper
		case pathChar[c]:
			t[i] = classPlain
		default:
			t[i] = classOther
		}
	}
	return t
}()

// canonicalSegment looks at what follows a slash: not another slash, and not a
// dot segment.
func canonicalSegment(s string) bool {
	switch {
	case s == "":
		return true
	case s[0] == '/':
		return false
	case s[0] != '.':
		return true
	}
	dots := 1
	if len(s) > 1 && s[1] == '.' {
		dots = 2
	}
	return len(s) > dots && s[dots] != '/'
}

// canonicalEscape looks at an escape at the start of s: well formed, and of a
// byte that is neither unreserved (RFC 3986, 2.3) nor read differently by
// upstreams once it is decoded.
func canonicalEscape(s string) bool {
	if len(s) < 3 {
		return false
	}
	c, ok := ascii.Unhex(s[1], s[2])
	if !ok {
		return false
	}
	switch {
	case c < 0x20, c >= 0x7f:
		return false
	case ascii.IsAlnum(c):
		return false
	default:
		return strings.IndexByte(`-._~/\%;#?`, c) < 0
	}
}
