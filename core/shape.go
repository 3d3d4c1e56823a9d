package core

import (
	"strings"

	"github.com/keystile/keystile/core/policy"
)

// canonicalPath says whether a path is in the one form in which edge and
// upstream cannot read it differently: it begins with a slash, has no empty and
// no dot segments, and holds only characters of RFC 3986 and escapes of those
// that need one. What is not is refused, never repaired (R9–R13).
func canonicalPath(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		c := path[i]
		if !policy.CanonicalPathChar(c) {
			if c != '%' || !canonicalEscape(path[i:]) {
				return false
			}
			i += 2
			continue
		}
		if c == '/' && !canonicalSegment(path[i+1:]) {
			return false
		}
	}
	return true
}

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
	hi, lo := unhex(s[1]), unhex(s[2])
	if hi < 0 || lo < 0 {
		return false
	}
	switch c := byte(hi<<4 | lo); {
	case c < 0x20, c >= 0x7f:
		return false
	case c-'a' < 26, c-'A' < 26, c-'0' < 10:
		return false
	default:
		return strings.IndexByte(`-._~/\%;#?`, c) < 0
	}
}

func unhex(c byte) int {
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

// canonicalQuery refuses what no URL has in its query: spaces, control and
// non-ASCII bytes, and fragments (R13).
func canonicalQuery(q string) bool {
	for i := range len(q) {
		if q[i] <= 0x20 || q[i] >= 0x7f || q[i] == '#' {
			return false
		}
	}
	return true
}
