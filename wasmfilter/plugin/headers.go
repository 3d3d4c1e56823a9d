package plugin

import (
	"strings"

	"github.com/keystile/keystile/core"
)

// headers gives core the lines of a request. Its slices are used again for every
// request.
type headers struct {
	lines  [][2]string
	values []string
}

// take takes a request's lines, and puts its pseudo-headers where they belong. A
// request that has one twice is left without a method, which no policy allows.
func (h *headers) take(lines [][2]string, r *core.Request) {
	h.lines, h.values = lines, h.values[:0]
	var method, authority, path string
	twice := false
	set := func(to *string, value string) {
		twice = twice || *to != ""
		*to = value
	}
	for _, l := range lines {
		switch l[0] {
		case ":method":
			set(&method, l[1])
		case ":authority":
			set(&authority, l[1])
		case ":path":
			set(&path, l[1])
		}
	}
	if twice {
		method = ""
	}
	r.Method, r.Authority = method, authority
	r.Path, r.Query, _ = strings.Cut(path, "?")
}

// Values gives the lines of a name, which core writes in any case.
func (h *headers) Values(name string) []string {
	from := len(h.values)
	for _, l := range h.lines {
		if isName(l[0], name) {
			h.values = append(h.values, l[1])
		}
	}
	return h.values[from:len(h.values):len(h.values)]
}

// isName says whether lower, in lower case, is name but for ASCII case.
func isName(lower, name string) bool {
	if len(lower) != len(name) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
