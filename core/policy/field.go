package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// Field is what a header field of a request means to the edge, by its name.
type Field uint8

// The meanings. All but the first concern what goes on upstream.
const (
	// FieldOther goes on as it is, unless it holds the API key.
	FieldOther Field = iota
	// FieldRemoved is a source or an identity header, or one that offers HTTP/2: it
	// never goes on.
	FieldRemoved
	// FieldToken is the customer token's: it goes on where the route demands it.
	FieldToken
	// FieldOverride asks the upstream to take another method than the request's (R20).
	FieldOverride
	// FieldUpgrade asks for another protocol on the connection.
	FieldUpgrade
	// FieldConnection names other fields.
	FieldConnection
	// FieldRequestID is the request's ID: it goes on unless the edge sets its own.
	FieldRequestID
)

// overrides are the headers by which some upstreams let a client replace the method
// that was decided on (R20).
var overrides = []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"}

// RequestID is the header that names a request: in the answer to a denial, and upstream
// where the host sets it.
const RequestID = "Request-Id"

// identityPrefix covers every identity header of this and later versions.
const identityPrefix = "keystile-"

// maxFieldName is the longest name in fieldNames.
const maxFieldName = 64

// fieldNames holds the folded names of the header fields that mean something to the
// edge, by their length: nearly every line of a request is about another one, and
// its length and first character say so.
type fieldNames [maxFieldName + 1][]fieldName

type fieldName struct {
	folded string
	means  Field
}

func newFieldNames(p *Policy) (*fieldNames, error) {
	f := new(fieldNames)
	var failed error
	add := func(name string, means Field) {
		if name == "" || len(name) > maxFieldName {
			failed = fmt.Errorf("header %q: a name has 1 to %d characters", name, maxFieldName)
			return
		}
		// It goes before one that the name has already.
		f[len(name)] = slices.Insert(f[len(name)], 0, fieldName{ascii.FoldName(name), means})
	}
	for _, n := range overrides {
		add(n, FieldOverride)
	}
	add("Upgrade", FieldUpgrade)
	add("Connection", FieldConnection)
	add("HTTP2-Settings", FieldRemoved)
	add(RequestID, FieldRequestID)
	if p.CustomerToken != nil {
		add(p.CustomerToken.Source.Header, FieldToken)
	}
	for _, src := range p.Sources {
		add(src.Header, FieldRemoved)
	}
	id := p.Identity
	for _, n := range id.list() {
		if *n != "" {
			add(*n, FieldRemoved)
		}
	}
	return f, failed
}

// Field says what the header field called name means, under any name that folds
// to one that is known ([ascii.FoldName]): backends read the others as that one
// (R20, R32, R36).
func (p *Policy) Field(name string) Field {
	if len(name) > 0 && len(name) <= maxFieldName {
		for i := range p.headers[len(name)] {
			if n := &p.headers[len(name)][i]; ascii.HasFoldedPrefix(name, n.folded) {
				return n.means
			}
		}
	}
	if ascii.HasFoldedPrefix(name, identityPrefix) {
		return FieldRemoved
	}
	return FieldOther
}

// IsToken says whether name is the customer token's own field, and not one of its
// aliases.
func (p *Policy) IsToken(name string) bool {
	return p.CustomerToken != nil && ascii.EqualFold(name, p.CustomerToken.Source.Header)
}

// CleanConnection returns a Connection line without the options that name a field
// which the edge removes or sets, so that a proxy behind cannot be told to drop what
// the edge sets (R37), nor to open a tunnel. keepUpgrade keeps the option of a
// WebSocket.
func (p *Policy) CleanConnection(line string, keepUpgrade bool) string {
	if line == "keep-alive" || line == "close" {
		return line
	}
	var kept []string
	dropped := false
	for option := range strings.SplitSeq(line, ",") {
		switch p.Field(strings.Trim(option, " \t")) {
		case FieldOther:
		case FieldUpgrade:
			if keepUpgrade {
				break
			}
			dropped = true
			continue
		default:
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

// FramesMessage says whether the header field called name frames or routes a
// message, or is written by proxies before: a line of it is not simply taken away.
func FramesMessage(name string) bool {
	switch folded := ascii.FoldName(name); folded {
	case "forwarded", "via", "x-real-ip", "host", "te", "trailer", "expect":
		return true
	default:
		for _, prefix := range []string{"x-forwarded-", "x-envoy-", "content-", "sec-websocket-"} {
			if strings.HasPrefix(folded, prefix) {
				return true
			}
		}
		return false
	}
}

// Reserved says whether the header field called name means something already, so that
// no policy can take it for a source or for identity: it frames or routes the message,
// is about one connection alone, or is looked at for something else.
func Reserved(name string) bool {
	switch folded := ascii.FoldName(name); folded {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "http2-settings",
		"proxy-authenticate", "request-id", "cookie", "origin", "referer", "early-data":
		return true
	default:
		return FramesMessage(name) || slices.ContainsFunc(overrides, func(o string) bool { return SameField(o, name) })
	}
}

// SameField says whether two names are aliases: backends read one as the other.
func SameField(a, b string) bool { return ascii.FoldName(a) == ascii.FoldName(b) }
