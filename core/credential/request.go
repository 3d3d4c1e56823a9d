package credential

import (
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// Headers gives the lines of a request's header fields.
type Headers interface {
	// Values returns every line of the field with this name, which is in the
	// canonical form of net/http ("X-Api-Key"). The slice is only read.
	Values(name string) []string
}

// Source is a header field in which a policy accepts an API key.
type Source struct {
	Header string // in the canonical form of net/http
	Name   string // as the API's document spells it
	Scheme string // authentication scheme before the key, or "" for none
}

// Value returns the credential in one line of the source: what follows the
// scheme (in any ASCII case) and exactly one space.
func (s Source) Value(line string) (string, bool) {
	if s.Scheme == "" {
		return line, line != ""
	}
	n := len(s.Scheme)
	if len(line) <= n+1 || line[n] != ' ' || !ascii.EqualFold(line[:n], s.Scheme) {
		return "", false
	}
	return line[n+1:], true
}

// Find returns the only credential line among all lines of all sources, and
// how many lines there are. Every line counts, whatever its scheme and even
// when two are equal, because a proxy before or behind may read another one
// than this (security requirement R26). ok is false unless there is exactly
// one and it follows its source's form.
func Find(sources []Source, h Headers) (value string, lines int, ok bool) {
	for _, s := range sources {
		for _, line := range h.Values(s.Header) {
			if lines += s.joined(line); lines > 1 {
				continue
			}
			value, ok = s.Value(line)
		}
	}
	if lines != 1 || !ok {
		return "", lines, false
	}
	return value, lines, true
}

// joined is how many lines one line was made of. A proxy may join lines of one
// name with commas (RFC 9110 section 5.3), and Envoy does so with Authorization: no
// API key has a comma, so that where the scheme is the source's, at the beginning or
// after a comma, each comma joins two lines.
func (s Source) joined(line string) int {
	if s.Scheme == "" || strings.IndexByte(line, ',') < 0 {
		return 1
	}
	parts := strings.Split(line, ",")
	for _, part := range parts {
		if _, ok := s.Value(strings.TrimLeft(part, " \t")); ok {
			return len(parts)
		}
	}
	return 1
}

// WithinEncoded is [Grammar.Within] for s as received and once more after one
// percent-decoding, for a URL's path and query and for cookies (R29).
func (g *Grammar) WithinEncoded(s string) bool {
	if g.Within(s) {
		return true
	}
	if strings.IndexByte(s, '%') < 0 {
		return false
	}
	decoded := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, ok := ascii.Unhex(s[i+1], s[i+2]); ok {
				decoded = append(decoded, c)
				i += 2
				continue
			}
		}
		decoded = append(decoded, s[i])
	}
	return g.Within(string(decoded))
}
