// Package credential knows how an API key looks: it makes keys, recognises
// them, and finds the one that a request carries.
//
// An API key is
//
//	<kind prefix>_<environment>_<body>
//
// and the body is 32 random base62 characters (190 bits) followed by the
// CRC-32 (IEEE) of everything before it as six base62 digits. The checksum
// lets an edge or a secret scanner refuse a typo without a lookup; it is not a
// security check.
//
// For most uses, make a [Grammar] from a policy's prefixes and environments and
// call [Grammar.Parse]; [Generate] makes a key that it accepts.
package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unsafe"
)

// Alphabet is the 62 characters of a key's body, in digit order.
const Alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const (
	randomLen   = 32
	checksumLen = 6
	bodyLen     = randomLen + checksumLen

	// A body brought in from elsewhere has no checksum and any length in here.
	minImported = 20
	maxImported = 256

	// maxNames bounds kind prefix and environment together, so that an issued
	// key is at most 55 bytes: one SHA-256 block.
	maxNames = 15
)

// Digest is the SHA-256 of an API key, the only form of it that is ever stored.
type Digest [sha256.Size]byte

// DigestOf returns the digest of key.
func DigestOf(key string) Digest { return sha256.Sum256(bytesOf(key)) }

// bytesOf views s as bytes without a copy: the hot path hashes a key that the
// host owns, and a conversion of more than 32 bytes would allocate.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// Grammar is the set of API keys that one policy can name. It is immutable and
// safe for concurrent use. The zero value accepts nothing.
type Grammar struct {
	prefixes     []string
	environments []string
	imported     bool

	heads []head    // every prefix with every environment
	ends  [256]bool // last characters of the prefixes

	shortest int // length of a key
}

// head is how keys of one kind and environment begin.
type head struct {
	text              string
	kind, environment int
}

// NewGrammar returns the grammar of the given kind prefixes and environment
// names, each of lower-case letters and digits. With imported, bodies of 20 to
// 256 characters without a checksum are accepted too.
func NewGrammar(prefixes, environments []string, imported bool) (*Grammar, error) {
	for what, names := range map[string][]string{"kind prefix": prefixes, "environment": environments} {
		seen := make(map[string]bool)
		for _, n := range names {
			if n == "" || strings.Trim(n, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
				return nil, fmt.Errorf("%s %q: use lower-case letters and digits only", what, n)
			}
			if seen[n] {
				return nil, fmt.Errorf("%s %q is given twice", what, n)
			}
			seen[n] = true
		}
	}
	for _, p := range prefixes {
		for _, e := range environments {
			if len(p)+len(e) > maxNames {
				return nil, fmt.Errorf("kind prefix %q and environment %q have more than %d characters together: shorten one", p, e, maxNames)
			}
		}
	}
	g := &Grammar{prefixes: slices.Clone(prefixes), environments: slices.Clone(environments), imported: imported}
	for i, p := range prefixes {
		g.ends[p[len(p)-1]] = true
		for j, e := range environments {
			h := head{p + "_" + e + "_", i, j}
			g.heads = append(g.heads, h)
			n := len(h.text) + bodyLen
			if imported {
				n = len(h.text) + minImported
			}
			if g.shortest == 0 || n < g.shortest {
				g.shortest = n
			}
		}
	}
	return g, nil
}

// Shortest is the length of the shortest API key, in bytes.
func (g *Grammar) Shortest() int { return g.shortest }

// Parse takes an API key apart. It returns the index of its kind prefix and of
// its environment in the slices given to [NewGrammar]; ok is false if key is
// not in the grammar or its checksum is wrong.
func (g *Grammar) Parse(key string) (kind, environment int, ok bool) {
	kind, environment, ok = g.Split(key)
	return kind, environment, ok && g.Valid(key)
}

// Split is the first half of [Grammar.Parse]: it reads the names before the body
// and looks at the body's length. It is for whoever finds out otherwise, as by
// its digest in a cache of issued keys, that the rest is right.
func (g *Grammar) Split(key string) (kind, environment int, ok bool) {
	kind, environment, body := g.names(key)
	n := len(key) - body
	if body < 0 || n != bodyLen && (!g.imported || n < minImported || n > maxImported) {
		return 0, 0, false
	}
	return kind, environment, true
}

// Valid is the second half: the alphabet of the body, and the checksum.
func (g *Grammar) Valid(key string) bool {
	_, _, body := g.names(key)
	if body < 0 {
		return false
	}
	for i := body; i < len(key); i++ {
		if !bodyChar[key[i]] {
			return false
		}
	}
	return g.imported || checksumFits(key)
}

// names reads "<prefix>_<environment>_" at the start of s and returns where the
// body begins, or -1.
func (g *Grammar) names(s string) (kind, environment, body int) {
	if s == "" {
		return 0, 0, -1
	}
	for i := range g.heads {
		if h := &g.heads[i]; h.text[0] == s[0] && strings.HasPrefix(s, h.text) {
			return h.kind, h.environment, len(h.text)
		}
	}
	return 0, 0, -1
}

// Within says whether s holds something that looks like an API key: a kind
// prefix, an environment and a body of the right length and alphabet, with no
// further body character before or after. The checksum is not asked, so that a
// mistyped key in a URL is refused like the right one.
func (g *Grammar) Within(s string) bool {
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '_')
		if i < 0 {
			return false
		}
		i += from
		from = i + 1
		if i == 0 || !g.ends[s[i-1]] {
			continue
		}
		for _, p := range g.prefixes {
			start := i - len(p)
			if start < 0 || s[start:i] != p || start > 0 && bodyChar[s[start-1]] {
				continue
			}
			if _, _, body := g.names(s[start:]); body >= 0 && g.bodyAt(s[start+body:]) {
				return true
			}
		}
	}
}

func (g *Grammar) bodyAt(s string) bool {
	n := 0
	for n < len(s) && bodyChar[s[n]] {
		n++
	}
	return n == bodyLen || g.imported && n >= minImported && n <= maxImported
}

// Regexp returns an RE2 expression for secret scanners. Its only group is an
// API key, and it matches exactly what [Grammar.Within] finds.
func (g *Grammar) Regexp() string {
	length := fmt.Sprintf("{%d}", bodyLen)
	if g.imported {
		length = fmt.Sprintf("{%d,%d}", minImported, maxImported)
	}
	return `(?:^|[^0-9A-Za-z])((?:` + strings.Join(g.prefixes, "|") + `)_(?:` +
		strings.Join(g.environments, "|") + `)_[0-9A-Za-z]` + length + `)(?:[^0-9A-Za-z]|$)`
}

var bodyChar = func() (t [256]bool) {
	for _, c := range []byte(Alphabet) {
		t[c] = true
	}
	return t
}()

// Generate makes a new API key from the operating system's random source.
func Generate(prefix, environment string) (Secret, error) {
	if len(prefix)+len(environment) > maxNames {
		return Secret{}, errors.New("kind prefix and environment are too long for a key")
	}
	key := prefix + "_" + environment + "_" + RandomText(randomLen)
	return Secret{key + checksum(key)}, nil
}

// RandomText returns n random base62 characters.
func RandomText(n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	for {
		rand.Read(buf) // never fails: crypto/rand ends the process instead
		for _, c := range buf {
			if c < 4*62 { // drop the rest: 256 is no multiple of 62
				if out = append(out, Alphabet[c%62]); len(out) == n {
					return string(out)
				}
			}
		}
	}
}

// Checksummed says whether a text ends in the checksum of what stands before it, as
// every key that [Generate] made does, under whatever policy.
func Checksummed(text string) bool { return len(text) > checksumLen && checksumFits(text) }

func checksumFits(key string) bool {
	n := len(key) - checksumLen
	digits := checksumDigits(key[:n])
	return key[n:] == string(digits[:])
}

func checksum(key string) string {
	digits := checksumDigits(key)
	return string(digits[:])
}

func checksumDigits(key string) (digits [checksumLen]byte) {
	sum := crc32.ChecksumIEEE(bytesOf(key))
	for i := checksumLen - 1; i >= 0; i-- {
		digits[i] = Alphabet[sum%62]
		sum /= 62
	}
	return digits
}
