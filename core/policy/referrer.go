package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/keystile/keystile/core/shape"
)

// ReferrerPattern is one origin that a key may be used from.
type ReferrerPattern struct {
	scheme, host, port string
	wildcard           bool
}

// ParseReferrer reads an origin, "https://shop.example.com", with a port if it
// is not the scheme's own, or "https://*.example.com" for all names below one.
// A path is refused: browsers do not send it across origins.
func ParseReferrer(s string) (ReferrerPattern, error) {
	bare, wildcard := s, false
	if scheme, rest, ok := strings.Cut(s, "://*."); ok {
		bare, wildcard = scheme+"://"+rest, true
	}
	o, ok := parseOrigin(bare)
	o.wildcard = wildcard
	if _, err := netip.ParseAddr(strings.Trim(o.host, "[]")); wildcard && err == nil {
		ok = false
	}
	if !ok {
		return o, fmt.Errorf("referrer %q: write an origin, like https://shop.example.com or https://*.example.com, without a path", s)
	}
	return o, nil
}

// Canonical is the one spelling of the origin.
func (o ReferrerPattern) Canonical() string {
	star := ""
	if o.wildcard {
		star = "*."
	}
	port := ":" + o.port
	if o.port == defaultPort[o.scheme] {
		port = ""
	}
	return o.scheme + "://" + star + o.host + port
}

var defaultPort = map[string]string{"http": "80", "https": "443"}

// Allows says whether a request with these lines of Origin and Referer comes
// from the origin. The Origin line counts if there is one, else the origin of
// Referer; either one repeated is no match (R43).
func (o ReferrerPattern) Allows(origin, referer []string) bool {
	if repeated(origin) || repeated(referer) {
		return false
	}
	var from ReferrerPattern
	ok := false
	switch {
	case len(origin) == 1:
		from, ok = parseOrigin(origin[0])
	case len(referer) == 1:
		from, ok = parseOrigin(originOf(referer[0]))
	}
	if !ok || from.scheme != o.scheme || from.port != o.port {
		return false
	}
	if o.wildcard {
		return len(from.host) > len(o.host)+1 && strings.HasSuffix(from.host, "."+o.host)
	}
	return from.host == o.host
}

// repeated says whether there are several lines, or one that was made of several: a
// proxy may join lines of one name with commas (RFC 9110 section 5.3), and Envoy does
// so with Referer.
func repeated(lines []string) bool {
	if len(lines) != 1 {
		return len(lines) > 1
	}
	line := strings.Trim(lines[0], " \t")
	if strings.HasPrefix(line, ",") || strings.HasSuffix(line, ",") {
		return true
	}
	for rest := line; ; {
		i := strings.IndexByte(rest, ',')
		if i < 0 {
			return false
		}
		rest = strings.TrimLeft(rest[i+1:], " \t")
		scheme, _, ok := strings.Cut(rest, "://")
		if ok && defaultPort[strings.ToLower(scheme)] != "" {
			return true
		}
	}
}

// originOf cuts a URL after its authority.
func originOf(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return scheme + "://" + rest
}

// parseOrigin reads a serialised origin as an exact scheme, host and port. User
// information, "null" and anything else that is no host and port is refused.
func parseOrigin(s string) (o ReferrerPattern, ok bool) {
	scheme, authority, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	if !ok || defaultPort[scheme] == "" {
		return o, false
	}
	host, ok := shape.CanonicalHost(authority)
	if !ok || strings.HasSuffix(strings.SplitN(authority, ":", 2)[0], ".") {
		return o, false
	}
	o = ReferrerPattern{scheme: scheme, host: host, port: defaultPort[scheme]}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		o.host, o.port = host[:i], host[i+1:]
	} else if strings.HasSuffix(authority, ":443") {
		o.port = "443" // CanonicalHost takes it off, whatever the scheme
	}
	return o, true
}

// parseIP reads an IP prefix or a single address that a key may be used from.
// An IPv4-mapped one counts as IPv4 (R41); zones are refused.
func parseIP(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return p, fmt.Errorf("%q is neither an IP address nor a prefix like 192.0.2.0/24", s)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("prefix %q: write the IPv4 prefix itself", s)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// ParseIPs is parseIP for a list.
func ParseIPs(list []string) (prefixes []netip.Prefix, err error) {
	for _, s := range list {
		p, err := parseIP(s)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}
