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

func lower(c byte) byte {
	if c-'A' < 26 {
		c |= 0x20
	}
	return c
}

// Unhex is the byte that the hexadecimal digits hi and lo stand for.
func Unhex(hi, lo byte) (c byte, ok bool) {
	h, l := digit(hi), digit(lo)
	return byte(h<<4 | l), h >= 0 && l >= 0
}

func digit(c byte) int {
	switch {
	case c-'0' < 10:
		return int(c - '0')
	case c-'a' < 6:
		return int(c-'a') + 10
	case c-'A' < 6:
		return int(c-'A') + 10
	}
	return -1
}
