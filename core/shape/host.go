package shape

import (
	"net/netip"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// CanonicalHost brings an authority into its one form: lower-case ASCII, one
// trailing dot and the port 443 removed; any other port stays. ok is false for
// what is no authority of an HTTPS request: user information, commas, escapes,
// empty labels, ports out of range, zones (R22, R23).
func CanonicalHost(authority string) (host string, ok bool) {
	host, port := authority, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return "", false
		}
		addr, err := netip.ParseAddr(host[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", false
		}
		host, port = "["+addr.String()+"]", host[end+1:]
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			host, port = host[:i], host[i:]
		}
		host = strings.TrimSuffix(host, ".")
		if !validName(host) {
			return "", false
		}
		if ascii.HasUpper(host) {
			host = strings.ToLower(host)
		}
	}
	switch port {
	case "":
		return host, true
	case ":443":
		return host, true
	}
	n := 0
	for i := 1; i < len(port); i++ {
		if c := port[i]; c < '0' || c > '9' || len(port) > 6 {
			return "", false
		}
		n = n*10 + int(port[i]-'0')
	}
	if n < 1 || n > 65535 || port[0] != ':' || port[1] == '0' {
		return "", false
	}
	return host + port, true
}

// HostName is a canonical host without its port and brackets, for comparison
// with a server name of TLS.
func HostName(host string) string {
	if strings.HasPrefix(host, "[") {
		host, _, _ = strings.Cut(host[1:], "]")
		return host
	}
	host, _, _ = strings.Cut(host, ":")
	return host
}

// validName says whether s is letters, digits, dashes and underscores in
// non-empty labels, 253 bytes at most.
func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if label == 0 {
				return false
			}
			label = 0
		case ascii.IsAlnum(c), c == '-', c == '_':
			if label++; label > 63 {
				return false
			}
		default:
			return false
		}
	}
	return label > 0
}
