package credential

import (
	"encoding/base64"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// Header is one line of a request's header, or of an answer's.
type Header struct{ Name, Value string }

// Is says whether the line is of the field called name, in any ASCII case.
func (h *Header) Is(name string) bool {
	return len(h.Name) == len(name) && ascii.EqualFold(h.Name, name)
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
func Find(sources []Source, headers []Header) (value string, lines int, ok bool) {
	for i := range sources {
		s := &sources[i]
		for j := range headers {
			h := &headers[j]
			if !h.Is(s.Header) {
				continue
			}
			if lines += s.joined(h.Value); lines == 1 {
				value, ok = s.Value(h.Value)
			}
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
// after a comma, or the source has none, each comma joins two lines.
func (s *Source) joined(line string) int {
	if strings.IndexByte(line, ',') < 0 {
		return 1
	}
	parts := strings.Split(line, ",")
	for _, part := range parts {
		if s.begins(strings.Trim(part, " \t")) {
			return len(parts)
		}
	}
	return 1
}

// begins says whether part of a line begins with the source's scheme.
func (s *Source) begins(part string) bool {
	n := len(s.Scheme)
	return len(part) >= n && ascii.EqualFold(part[:n], s.Scheme) && (n == 0 || len(part) == n || part[n] == ' ' || part[n] == '\t')
}

// Holds says whether the value of a header line holds the API key key: as it is,
// after one percent-decoding, or inside of Basic credentials (RFC 7617). Other
// spellings are not looked for.
func Holds(value, key string) bool {
	if len(value) < len(key) {
		return false
	}
	if strings.Contains(value, key) {
		return true
	}
	if strings.IndexByte(value, '%') >= 0 && strings.Contains(ascii.Unescape(value), key) {
		return true
	}
	const basic = "Basic "
	if !ascii.HasFoldedPrefix(value, "basic-") || value[len(basic)-1] != ' ' {
		return false
	}
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimLeft(value[len(basic):], " "), "= "))
	return err == nil && strings.Contains(string(decoded), key)
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
	return g.Within(ascii.Unescape(s))
}

// maxDecodings is how often [Grammar.MayHold] takes percent-escapes off.
const maxDecodings = 8

// MayHold says whether s could give an API key away to whoever reads it: the head of
// one stands in it, in any case and however often it is percent-encoded, with whatever
// behind it. It is for what is only logged: it finds keys that are mistyped too, and
// says yes rather than no.
func (g *Grammar) MayHold(s string) bool {
	for range maxDecodings {
		lower := strings.ToLower(s)
		for i := range g.heads {
			if strings.Contains(lower, g.heads[i].text) {
				return true
			}
		}
		decoded := ascii.Unescape(s)
		if decoded == s {
			return false
		}
		s = decoded
	}
	return true
}
