package caddymodule

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// checkServer refuses a server around keystile handlers that would break what a policy
// promises, or deny what it allows. What cannot be judged, or is for some requests
// alone, is a warning. It looks once, however many handlers the server has.
func (a *App) checkServer(ctx caddy.Context, server *caddyhttp.Server) error {
	if a.looked[server] {
		return nil
	}
	app, ok := ctx.Modules()[0].(*caddyhttp.App)
	if !ok {
		return nil
	}
	if a.http == nil {
		var err error
		if a.http, err = readHTTPConfig(ctx); err != nil {
			return err
		}
		a.looked, a.sites, a.warned = make(map[*caddyhttp.Server]bool), make(map[string][]site), make(map[string]bool)
	}
	a.looked[server] = true
	warn := func(msg string) {
		if !a.warned[msg] { // the two addresses of a site have the same routes
			a.warned[msg] = true
			ctx.Logger().Warn(msg)
		}
	}
	l := &looker{app: app, servers: a.http.Servers, places: make(map[string][]place), keystile: a, warn: warn}
	for name, s := range a.http.Servers {
		l.places[name] = s.places()
	}
	for name, s := range app.Servers {
		if s == server && a.http.Servers[name] != nil {
			return l.look(name)
		}
	}
	return errHidden
}

// looker looks through a server of the http app.
type looker struct {
	app      *caddyhttp.App
	servers  map[string]*serverConfig
	places   map[string][]place // of each server
	keystile *App
	warn     func(string)
}

func (l *looker) look(name string) error {
	for i := range l.places[name] {
		p := &l.places[name][i]
		if err := l.checkWrappers(name); err != nil {
			return err
		}
		for _, check := range []func(string, *place) error{l.checkAutomaticRedirects, l.checkRedirects, l.checkPlain, l.checkHosts, l.checkRewrites, l.checkWaysAround} {
			if err := check(name, p); err != nil {
				return fmt.Errorf("%s: %w", p.shown(), err)
			}
		}
	}
	return nil
}

// shown names a place.
func (p *place) shown() string {
	if p.hosts == nil {
		return fmt.Sprintf("keystile %s (any host)", p.handler.keystile.Bundle)
	}
	return fmt.Sprintf("keystile %s (%s)", p.handler.keystile.Bundle, strings.Join(p.hosts, ", "))
}

// shownHost names a host, or "" for any.
func shownHost(host string) string {
	if host == "" {
		return "any host"
	}
	return "host " + host
}

// plain says whether a server speaks HTTP without TLS.
func (l *looker) plain(name string) bool {
	return l.app.Servers[name] != nil && l.app.Servers[name].TLSConnPolicies == nil
}

func (l *looker) checkAutomaticRedirects(name string, p *place) error {
	return checkPlainHTTP(l.app, l.app.Servers[name], p)
}

// checkPlain warns of a place that only plain HTTP comes to: every request is denied.
func (l *looker) checkPlain(name string, p *place) error {
	b := l.keystile.Bundles[p.handler.keystile.Bundle]
	if b == nil || len(b.TLSTerminators) > 0 || !l.plain(name) {
		return nil
	}
	for other, places := range l.places {
		if !l.plain(other) && slices.ContainsFunc(places, func(q place) bool { return p.hosts == nil || q.hosts == nil || len(narrow(p.hosts, q.hosts)) > 0 }) {
			return nil
		}
	}
	l.warn(p.shown() + ": requests come by plain HTTP alone, which is denied with 403: name the HTTPS site too, as in `http://host, https://host { keystile … }`; " +
		"or where something in front of Caddy ends TLS, name its addresses by `tls_terminators` in the bundle's block")
	return nil
}

// checkWrappers refuses the listener wrapper that redirects plain HTTP on a port of
// HTTPS.
func (l *looker) checkWrappers(name string) error {
	for _, w := range l.servers[name].ListenerWrappers {
		if w.Wrapper == "http_redirect" {
			return fmt.Errorf("the listener wrapper http_redirect would redirect plain HTTP on the port of HTTPS, after the API key has been sent in clear: take `http_redirect` out of listener_wrappers; without it Go answers such requests with 400")
		}
	}
	return nil
}

// flowTo is the flow of requests for the hosts of p through the routes of a server that
// are for them.
func (l *looker) flowTo(name string, p *place) (*flow, []*routeConfig) {
	f := &flow{server: l.servers[name], hosts: p.hosts}
	var routes []*routeConfig
	for _, r := range f.server.Routes {
		if _, some := f.isFor(r.hosts); some {
			routes = append(routes, r)
		}
	}
	return f, routes
}

// checkRedirects refuses redirects to HTTPS that somebody has written: they are no better
// than Caddy's own.
func (l *looker) checkRedirects(_ string, p *place) error {
	for _, other := range slices.Sorted(maps.Keys(l.servers)) {
		if !l.plain(other) {
			continue
		}
		f, routes := l.flowTo(other, p)
		f.run(routes)
		for _, h := range f.redirects {
			if f.isOwn(h.location) {
				return fmt.Errorf("plain HTTP is redirected to %s, after the API key has been sent in clear: take the redirect out, and name the HTTP site beside the HTTPS one, so that keystile refuses it", h.location)
			}
		}
	}
	return nil
}

// isOwn says whether a redirect leads to the same host by HTTPS.
func (f *flow) isOwn(location string) bool {
	to, ok := strings.CutPrefix(strings.ToLower(location), "https://")
	if !ok {
		return false
	}
	host, _, _ := strings.Cut(to, "/")
	for _, path := range []string{"{http.request.uri", "{http.request.orig_uri"} { // begins behind the host
		host, _, _ = strings.Cut(host, path)
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, some := f.isFor([]string{host})
	return some
}

// site is a host that a handler protects, with the ports by which clients may name it,
// 443 by naming none: no ports where that cannot be known.
type site struct {
	host  string
	ports []int
}

// siteList is what a guard is told of the sites that it decides for.
type siteList struct{ sites []site }

// checkHosts refuses a host that the policy in use does not name. One without a bundle
// is judged when that is there.
func (l *looker) checkHosts(name string, p *place) error {
	named := p.handler.keystile.Bundle
	g := l.keystile.guards[named]
	if g == nil {
		return nil // its own handler says so
	}
	for _, host := range p.hosts {
		s := site{host, l.ports(name)}
		l.keystile.sites[named] = append(l.keystile.sites[named], s)
		b := g.verifier.Bundle()
		if b == nil {
			continue
		}
		switch served, doubt := s.servedBy(b.Policy); {
		case !served:
			return s.notServed(g, b.Policy)
		case doubt != "":
			l.warn(p.shown() + ": " + doubt)
		}
	}
	return nil
}

// ports are those by which clients reach a server: one that stands for 443 may be mapped
// to it, and who ends TLS in front of plain HTTP knows which port he has.
func (l *looker) ports(name string) (ports []int) {
	if l.plain(name) {
		return nil
	}
	for _, listen := range l.servers[name].Listen {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil {
			return nil
		}
		for port := address.StartPort; port <= address.EndPort; port++ {
			if len(ports) > 16 {
				return nil
			}
			if int(port) == max(l.app.HTTPSPort, l.keystile.http.HTTPSPort) {
				ports = append(ports, 443)
			}
			ports = append(ports, int(port))
		}
	}
	return ports
}

// servedBy says whether p names the host, and what is doubtful about it.
func (s *site) servedBy(p *policy.Policy) (served bool, doubt string) {
	host, ok := shape.CanonicalHost(s.host)
	if !ok { // Caddy names an IPv6 address without brackets
		host, ok = shape.CanonicalHost("[" + s.host + "]")
	}
	switch {
	case !p.NamesHosts() || isPlaceholder(s.host):
		return true, ""
	case strings.Contains(s.host, "*"):
		return slices.ContainsFunc(p.Hosts, func(h policy.Host) bool { return covers(s.host, shape.HostName(h.Name)) }), ""
	case !ok || !p.ServesName(shape.HostName(host)):
		return false, ""
	}
	named := func(port int) string {
		if port == 443 {
			return host
		}
		return host + ":" + strconv.Itoa(port)
	}
	if len(s.ports) == 0 || slices.ContainsFunc(s.ports, func(port int) bool { return p.Serves(named(port)) }) {
		return true, ""
	}
	return true, fmt.Sprintf("the policy names %s, and clients of port %d say %s, which is denied with 421 unless another port is mapped to it: "+
		"give the host as clients say it to `caddy keystile init --host`", hostNames(p), s.ports[0], named(s.ports[0]))
}

// notServed says what to do about a host that the policy does not name.
func (s *site) notServed(g *guard, p *policy.Policy) error {
	return fmt.Errorf("host %s: the policy of bundle %q (%s) names %s alone, so that every request for it would be denied with 421: "+
		"correct the site's address; or where the bundle is made, add %s to `hosts` in its settings.json, and build it with `caddy keystile bundle build`", s.host, g.name, g.source.path, hostNames(p), s.host)
}

func hostNames(p *policy.Policy) string {
	var names []string
	for _, h := range p.Hosts {
		if len(names) == 16 {
			names = append(names, "…")
			break
		}
		names = append(names, h.Name)
	}
	return strings.Join(names, ", ")
}

// watchSites says which hosts the policy in use does not name, where it has come after the
// configuration.
func (g *guard) watchSites() {
	list, b := g.sites.Load(), g.verifier.Bundle()
	if list == nil || b == nil {
		return
	}
	var notServed []string
	for _, s := range list.sites {
		if served, _ := s.servedBy(b.Policy); served {
			continue
		}
		if text := s.notServed(g, b.Policy).Error(); !slices.Contains(notServed, text) { // as on two servers
			notServed = append(notServed, text)
		}
	}
	if !slices.Equal(notServed, g.notServed) {
		for _, text := range notServed {
			g.logger.Load().Warn(text, zap.String("bundle", g.name))
		}
	}
	g.notServed = notServed
}

// checkRewrites refuses a rewrite before a handler that was not told of it: the requests
// that it changes are denied. One for some requests alone is a warning.
func (l *looker) checkRewrites(name string, p *place) error {
	if p.handler.keystile.Rewritten {
		return nil
	}
	f, routes := l.flowTo(name, p)
	f.target = p.handler
	f.run(routes)
	for _, r := range f.rewriters {
		one, routes := l.flowTo(name, p)
		one.target, one.only = p.handler, r
		one.run(routes)
		text := r.rewrites + " changes the request before keystile sees it, also where keystile stands first in a Caddyfile, which Caddy sorts; what it changes is denied with 503: " +
			"put both into `route { … }` with keystile first, or set the global option `order keystile first`; or write `rewritten` into keystile's block if the policy speaks of the new path"
		switch {
		case one.came&(openRewritten|elsewhereRewritten) == 0:
		case one.came&(open|elsewhere) == 0:
			return fmt.Errorf("%s", text)
		default:
			l.warn(p.shown() + ": " + text)
		}
	}
	return nil
}

// checkWaysAround refuses a matcher before a handler where the requests that it leaves out
// reach the same upstream without any: upstreams read paths in ways of their own, so that
// a client can ask for what is protected by a path that the matcher does not know.
func (l *looker) checkWaysAround(name string, p *place) error {
	if p.handler.keystile.Partial || p.top < 0 {
		return nil
	}
	f, routes := l.flowTo(name, p)
	f.target, f.held = p.handler, p.chain
	f.run(routes)
	protected := func(rs arrivals) bool { return rs&(passed|passedRewritten) != 0 }
	for _, r := range p.chain {
		if r.rest == "" || r.address {
			continue
		}
		around, routes := l.flowTo(name, p)
		around.target, around.missed = p.handler, r
		around.run(routes)
		for _, upstream := range slices.Sorted(maps.Keys(f.reached)) {
			if protected(f.reached[upstream]) && around.reached[upstream]&unguarded != 0 {
				return fmt.Errorf("requests that the matcher %s leaves out reach %s without an API key, and upstreams read paths in ways of their own, so that /v1;a/x, /v1\\x or /v1/../v2 may get around it: "+
					"protect the whole site, and make public routes public in the policy; or write `partial` into keystile's block if you mean it", r.rest, upstream)
			}
		}
		for h, rs := range f.unknown {
			if protected(rs) && around.unknown[h]&unguarded != 0 {
				l.warn(fmt.Sprintf("%s: requests that the matcher %s leaves out come to the handler %q without an API key: protect the whole site if it answers arrivals; write `partial` into keystile's block if you mean it", p.shown(), r.rest, h.kind))
			}
		}
	}
	l.warnOthers(name, p, f)
	return l.checkWaysBefore(name, p)
}

// checkWaysBefore refuses a route before a handler that takes requests to the same
// upstream: it is a way around like a matcher of the handler's own that leaves them out.
func (l *looker) checkWaysBefore(name string, p *place) error {
	hosts := p.hosts
	if hosts == nil {
		hosts = []string{""} // one that no route names
	}
	for _, host := range hosts {
		at := *p
		at.hosts = []string{host}
		f, routes := l.flowTo(name, &at)
		f.target, f.held, f.all = p.handler, p.chain, true
		f.run(routes)
		for _, upstream := range slices.Sorted(maps.Keys(f.reached)) {
			rs := f.reached[upstream]
			switch {
			case rs&unguarded == 0:
			case f.came == 0:
				return fmt.Errorf("no request for %s comes to keystile: a route before it sends all of them to %s: put keystile before it", shownHost(host), upstream)
			case rs&(passed|passedRewritten) != 0:
				return fmt.Errorf("requests that the matcher %s takes before keystile reach %s without an API key, and upstreams read paths in ways of their own, so that /public/..;/v1 or /public/..\\v1 may get around it: "+
					"protect the whole site, and make public routes public in the policy; or write `partial` into keystile's block if you mean it", f.by[upstream], upstream)
			}
		}
		if err := f.checkErrorPages(); err != nil {
			return err
		}
		if f.came == 0 {
			l.warn(fmt.Sprintf("%s: no request for %s comes to keystile: what stands before it answers all of them", p.shown(), shownHost(host)))
		}
	}
	return nil
}

// checkErrorPages refuses error routes that send what was denied, or has failed before the
// handler, to the upstream behind it as the client has sent it.
func (f *flow) checkErrorPages() error {
	if f.target.keystile.Errors != errorsPass && f.failed&open == 0 {
		return nil
	}
	pages := &flow{server: f.server, hosts: f.hosts, all: true}
	pages.run(f.server.Errors.Routes)
	for _, upstream := range slices.Sorted(maps.Keys(pages.reached)) {
		if pages.reached[upstream]&open != 0 && f.reached[upstream]&(passed|passedRewritten) != 0 {
			return fmt.Errorf("handle_errors sends what is denied, or has failed before keystile, to %s as the client has sent it, without an API key: "+
				"answer there (`respond`, `file_server`), or put `rewrite * /error.html` before it", upstream)
		}
	}
	return nil
}

// warnOthers says which other server gives requests for the same host to the same
// upstream without an API key.
func (l *looker) warnOthers(name string, p *place, f *flow) {
	for _, other := range slices.Sorted(maps.Keys(l.servers)) {
		if other == name || p.hosts == nil {
			continue
		}
		if slices.ContainsFunc(l.places[other], func(q place) bool { return q.hosts == nil || len(narrow(p.hosts, q.hosts)) > 0 }) {
			continue // what is there is looked at by itself
		}
		there, routes := l.flowTo(other, p)
		routes = slices.DeleteFunc(routes, func(r *routeConfig) bool { return r.hosts == nil })
		there.run(routes)
		for _, upstream := range slices.Sorted(maps.Keys(f.reached)) {
			if f.reached[upstream]&(passed|passedRewritten) != 0 && there.reached[upstream]&unguarded != 0 {
				l.warn(fmt.Sprintf("%s: %s is reached without an API key at %s too: put keystile there, or write `partial` into keystile's block if you mean it",
					p.shown(), upstream, strings.Join(l.servers[other].Listen, ", ")))
			}
		}
	}
}
