package caddymodule

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// trustsProxies says whether the server takes a client's address from a header.
// Caddy keeps the source of trusted proxies to itself. If its field is called
// otherwise one day, this says no; requests are then still safe, since
// [exchange.clientIP] looks at each.
func trustsProxies(server *caddyhttp.Server) bool {
	source, err := private[caddyhttp.IPRangeSource](server, "trustedProxies")
	return err == nil && *source != nil
}

// checkPlainHTTP refuses a configuration in which one of Caddy's automatic
// redirects would answer plain HTTP for a host that a handler of server protects. The
// key would have gone over the network in clear, the redirected call would
// succeed, and nobody would notice. By the time handlers are provisioned, Caddy
// has put its redirects into the servers.
func checkPlainHTTP(app *caddyhttp.App, server *caddyhttp.Server, p *place) error {
	if server.TLSConnPolicies == nil {
		return nil
	}
	for _, host := range protectedHosts(app, server, p) {
		for _, other := range app.Servers {
			if other.TLSConnPolicies == nil && redirects(other, host) {
				return fmt.Errorf("plain HTTP for %s (%s) would be redirected to HTTPS by Caddy itself, after the API key has been sent in clear: "+
					"name the HTTP site too, as in `http://%s, https://%s { keystile … }`, so that keystile refuses it; "+
					"or set `auto_https disable_redirects` if nothing is to listen there", shownHost(host), strings.Join(other.Listen, ", "), host, host)
			}
		}
	}
	return nil
}

// protectedHosts are the hosts whose requests come to a place. "" stands for any host
// that no redirect names.
func protectedHosts(app *caddyhttp.App, server *caddyhttp.Server, p *place) []string {
	if p.hosts != nil {
		return p.hosts
	}
	// A route for every host protects those that no route before it takes.
	hosts := []string{""}
	for _, other := range app.Servers {
		for _, route := range other.Routes {
			if !isRedirect(route) {
				continue
			}
			named, _ := hostsOf(route)
			for _, host := range named {
				taken := slices.ContainsFunc(server.Routes[:max(p.top, 0)], func(r caddyhttp.Route) bool {
					all, _ := takes(r.MatcherSets, host)
					return all && r.Terminal
				})
				if !taken {
					hosts = append(hosts, host)
				}
			}
		}
	}
	return hosts
}

// hostsOf are the hosts that a route's matchers name; any is true if it has a
// set of matchers that names none.
func hostsOf(route caddyhttp.Route) (hosts []string, any bool) {
	for _, set := range route.MatcherSets {
		named := false
		for _, m := range set {
			if list := hostMatcher(m); list != nil {
				hosts = append(hosts, list...)
				named = true
			}
		}
		any = any || !named
	}
	return hosts, any || len(route.MatcherSets) == 0
}

// hostMatcher is a matcher of hosts, or nil: Caddy's redirects hold it by value.
func hostMatcher(m any) caddyhttp.MatchHost {
	switch m := m.(type) {
	case caddyhttp.MatchHost:
		return m
	case *caddyhttp.MatchHost:
		return *m
	}
	return nil
}

// redirects says whether an automatic redirect is what takes requests for host
// on a server without TLS. "" is a host that no route names.
func redirects(server *caddyhttp.Server, host string) bool {
	for _, route := range server.Routes {
		all, some := takes(route.MatcherSets, host)
		switch {
		case isRedirect(route) && some:
			return true
		case all && (route.Terminal || holdsHandler(route)):
			return false
		}
	}
	return false
}

var handlerJSON = regexp.MustCompile(`"handler"\s*:\s*"keystile"`)

// holdsHandler says whether a keystile handler is in the route, which ends every
// request without TLS.
func holdsHandler(route caddyhttp.Route) bool {
	for _, raw := range route.HandlersRaw {
		if handlerJSON.Match(raw) {
			return true
		}
	}
	for _, h := range route.Handlers {
		switch h := h.(type) {
		case *Handler:
			return true
		case *caddyhttp.Subroute:
			if slices.ContainsFunc(h.Routes, holdsHandler) {
				return true
			}
		}
	}
	return false
}

// isRedirect recognises the redirects that Caddy makes: the only routes that
// have a handler without any JSON behind it.
func isRedirect(route caddyhttp.Route) bool {
	if len(route.Handlers) != 1 || route.HandlersRaw != nil {
		return false
	}
	response, ok := route.Handlers[0].(caddyhttp.StaticResponse)
	return ok && response.StatusCode == "308" && response.Close && len(response.Headers["Location"]) == 1
}

// takes says whether a route takes all requests for host, or some.
func takes(sets caddyhttp.MatcherSets, host string) (all, some bool) {
	if len(sets) == 0 {
		return true, true
	}
	for _, set := range sets {
		setAll, setSome := true, true
		for _, m := range set {
			if list := hostMatcher(m); list != nil {
				one, any := matchesHost(list, host)
				setAll, setSome = setAll && one, setSome && any
				continue
			}
			switch m.(type) {
			case caddyhttp.MatchProtocol, *caddyhttp.MatchProtocol:
			default:
				setAll = false
			}
		}
		all, some = all || setAll, some || setSome
	}
	return all, some
}

// matchesHost compares a host, which may be a wildcard or "" for any, with the
// patterns of a matcher.
func matchesHost(patterns caddyhttp.MatchHost, host string) (all, some bool) {
	for _, p := range patterns {
		switch {
		case strings.EqualFold(p, host):
			return true, true
		case covers(host, p):
			some = true
		case covers(p, host):
			return true, true
		}
	}
	return false, some
}

// covers says whether a wildcard pattern matches all that host stands for.
func covers(pattern, host string) bool {
	if !strings.Contains(pattern, "*") {
		return false
	}
	ps, hs := strings.Split(strings.ToLower(pattern), "."), strings.Split(strings.ToLower(host), ".")
	if len(ps) != len(hs) {
		return false
	}
	for i := range ps {
		if ps[i] != "*" && ps[i] != hs[i] {
			return false
		}
	}
	return true
}
