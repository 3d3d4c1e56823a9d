package plugin

import (
	"strings"

	"github.com/keystile/keystile/core"
)

// take takes a request's lines, and puts its pseudo-headers, which come first, where
// they belong. A request that has one twice is left without a method, which no policy
// allows. upgrade says that a line asks for another protocol.
func take(lines []core.Header, r *core.Request) (upgrade bool) {
	var method, authority, path string
	twice := false
	set := func(to *string, value string) {
		twice = twice || *to != ""
		*to = value
	}
	regular := 0
	for i := range lines {
		l := &lines[i]
		switch l.Name {
		case ":method":
			set(&method, l.Value)
		case ":authority":
			set(&authority, l.Value)
		case ":path":
			set(&path, l.Value)
		case "upgrade":
			upgrade = true
		case "transfer-encoding":
			r.Body = true
		case "content-length":
			r.Body = r.Body || l.Value != "0"
		}
		if strings.HasPrefix(l.Name, ":") {
			regular = i + 1
		}
	}
	if twice {
		method = ""
	}
	r.Method, r.Authority = method, authority
	r.Path, r.Query, _ = strings.Cut(path, "?")
	r.Headers = core.Lines(lines[regular:])
	return upgrade
}
