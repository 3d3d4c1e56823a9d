// Package ascii compares and decodes bytes without regard to Unicode, where
// strings.EqualFold would take the Kelvin sign for a k (security requirement R23).
package ascii

// EqualFold says whether a and b are equal once A–Z are lower-cased.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// IsUpper says whether c is one of A–Z.
func IsUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// IsAlnum says whether c is one of A–Z, a–z and 0–9.
func IsAlnum(c byte) bool {
	letter := c | 0x20 // in lower case, if it is one
	return 'a' <= letter && letter <= 'z' || isDigit(c)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// HasUpper says whether one of A–Z is in s.
func HasUpper(s string) bool {
	for i := range len(s) {
		if IsUpper(s[i]) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if IsUpper(c) {
		c |= 0x20
	}
	return c
}

// FoldName brings the name of a header field into the form in which aliases are
// equal: letters in lower case, and "-" for every byte that is no letter or digit.
// CGI and the servers that follow it fold "_", "." and a dozen more (R36).
func FoldName(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = folded[c]
	}
	return string(b)
}

// HasFoldedPrefix says whether [FoldName] of s begins with prefix.
func HasFoldedPrefix(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if folded[s[i]] != prefix[i] {
			return false
		}
	}
	return true
}

var folded = func() (t [256]byte) {
	for i := range t {
		t[i] = '-'
		if c := byte(i); IsAlnum(c) {
			t[i] = lower(c)
		}
	}
	return t
}()

// Unescape is s after one percent-decoding. What is no escape stays as it is.
func Unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, ok := Unhex(s[i+1], s[i+2]); ok {
				out = append(out, c)
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// Unhex is the byte that the hexadecimal digits hi and lo stand for.
func Unhex(hi, lo byte) (c byte, ok bool) {
	h, l := digit(hi), digit(lo)
	return byte(h<<4 | l), h >= 0 && l >= 0
}

func digit(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
