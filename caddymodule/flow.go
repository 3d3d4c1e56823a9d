package caddymodule

import (
	"slices"
	"strings"
)

// place is where a keystile handler stands.
type place struct {
	handler *handlerConfig
	chain   []*routeConfig // the routes that it is in, from the outermost
	hosts   []string       // that come there; nil for any
	top     int            // which of the server's routes it is in; -1 for none
}

// maxDepth bounds routes within routes, and named routes that invoke each other.
const maxDepth = 64

// places are all of a server's. One in a named route stands where that is invoked.
func (s *serverConfig) places() (all []place) {
	rewrites := 0
	var walk func(r *routeConfig, p place)
	walk = func(r *routeConfig, p place) {
		if len(p.chain) == maxDepth {
			return
		}
		r.rewrites = rewrites
		p.chain = append(slices.Clip(p.chain), r)
		p.hosts = narrow(p.hosts, r.hosts)
		for _, h := range r.handle {
			if h.kind == "keystile" && (p.hosts == nil || len(p.hosts) > 0) {
				p.handler = h
				all = append(all, p)
			}
			if h.rewrites != "" {
				rewrites++
			}
			for _, inner := range s.inside(h) {
				walk(inner, p)
			}
		}
	}
	for i, r := range s.Routes {
		walk(r, place{top: i})
	}
	for _, r := range s.Errors.Routes {
		walk(r, place{top: -1})
	}
	return all
}

// inside are the routes that a handler gives requests to.
func (s *serverConfig) inside(h *handlerConfig) []*routeConfig {
	if r := s.NamedRoutes[h.invokes]; r != nil {
		return []*routeConfig{r}
	}
	return h.routes
}

// narrow is those of two lists of hosts that are in both; nil is every host.
func narrow(outer, inner []string) []string {
	switch {
	case inner == nil:
		return outer
	case outer == nil:
		return inner
	}
	both := []string{}
	for _, o := range outer {
		for _, i := range inner {
			switch {
			case o == i || covers(o, i):
				both = append(both, i)
			case covers(i, o):
				both = append(both, o)
			}
		}
	}
	return both
}

// arrivals is a set of kinds of requests: who has let them come so far, nobody, somebody
// else, or the keystile handler that is looked at; and whether their URL is what the
// client has sent.
type arrivals uint8

const (
	open arrivals = 1 << iota
	openRewritten
	elsewhere // another keystile, basic_auth, forward_auth
	elsewhereRewritten
	passed
	passedRewritten

	unguarded = open | openRewritten
	fresh     = open | elsewhere | passed
)

func (rs arrivals) rewritten() arrivals { return (rs&fresh)<<1 | rs&^fresh }

// by is what the requests are that somebody has let come.
func (rs arrivals) by(who arrivals) arrivals {
	return who*(rs&1|rs>>2&1|rs>>4&1) | who<<1*(rs>>1&1|rs>>3&1|rs>>5&1)
}

// flow finds where requests for some hosts come in a list of routes. What matchers say
// of a request is not known, but for those that it is about: a request may be one that
// they match, or not.
type flow struct {
	server *serverConfig
	hosts  []string       // nil for any
	target *handlerConfig // the keystile handler that is looked at, or nil
	held   []*routeConfig // match what passes target
	all    bool           // held match what does not pass target too, and no route of a few addresses does
	missed *routeConfig   // does not match what comes otherwise, or nil
	only   *handlerConfig // the one that counts of those that rewrite; nil for all

	came      arrivals            // to target
	failed    arrivals            // by the directive error
	reached   map[string]arrivals // upstreams
	by        map[string]string   // by which matcher requests that nobody has let come reach them first
	unknown   map[*handlerConfig]arrivals
	redirects []*handlerConfig // that requests reach which nobody has let come
	rewriters []*handlerConfig // of requests that came as clients send them
	matcher   string           // the innermost that has let requests come where they are
	depth     int
}

// run lets requests come as clients send them.
func (f *flow) run(routes []*routeConfig) {
	f.reached, f.by, f.unknown = make(map[string]arrivals), make(map[string]string), make(map[*handlerConfig]arrivals)
	f.routes(routes, open)
}

// routes gives what goes on behind a list of routes.
func (f *flow) routes(list []*routeConfig, rs arrivals) (out arrivals) {
	if f.depth++; f.depth > maxDepth {
		f.depth--
		return rs
	}
	defer func() { f.depth-- }()
	// Requests that have been in a route of a group go by the others of that group.
	by := map[string]arrivals{"": rs}
	for _, r := range list {
		next := make(map[string]arrivals)
		for groups, rs := range by {
			if r.group != "" && strings.Contains(groups, "\x00"+r.group+"\x00") {
				next[groups] |= rs
				continue
			}
			into, past := f.split(r, rs)
			next[groups] |= past
			if into == 0 {
				continue
			}
			if r.group != "" {
				groups += "\x00" + r.group + "\x00"
			}
			outer := f.matcher
			if r.rest != "" {
				f.matcher = r.rest
			}
			if behind := f.handlers(r.handle, into); !r.terminal {
				next[groups] |= behind
			}
			f.matcher = outer
		}
		by = next
	}
	for _, rs := range by {
		out |= rs
	}
	return out
}

// split says which requests may come into a route, and which may go past it.
func (f *flow) split(r *routeConfig, rs arrivals) (into, past arrivals) {
	every, some := f.isFor(r.hosts)
	if !some {
		return 0, rs
	}
	for one := open; one <= passedRewritten; one <<= 1 {
		if rs&one == 0 {
			continue
		}
		in, by := true, !every || r.rest != ""
		if one&unguarded != 0 && f.missed != nil {
			in = in && !f.alike(f.missed, r, r.rest, one)
			by = by && !(every && f.opposite(f.missed, r, one))
		}
		if f.all && one&unguarded != 0 && (!every || r.guests) {
			in, by = slices.Contains(f.held, r), true
		}
		if f.all || one&(passed|passedRewritten) != 0 {
			for _, held := range f.held {
				in = in && !f.opposite(held, r, one)
				by = by && !(every && f.alike(held, r, r.rest, one))
			}
		}
		if in {
			into |= one
		}
		if by {
			past |= one
		}
	}
	return into, past
}

// alike says whether a route that has been asked about arrivals gives the answer for
// another one with the text of rest: nothing in between has changed them.
func (f *flow) alike(asked, r *routeConfig, rest string, one arrivals) bool {
	return rest != "" && rest == asked.rest && (r.rewrites == asked.rewrites || r.rewrites > asked.rewrites && one&fresh != 0)
}

// opposite says whether a route that has been asked about arrivals gives the opposite
// answer for another one.
func (f *flow) opposite(asked, r *routeConfig, one arrivals) bool {
	return f.alike(asked, r, r.negates, one) || r.rest != "" && r.rest == asked.negates && f.alike(asked, r, asked.rest, one)
}

// isFor says whether a matcher of hosts, nil for none, takes every request, or some.
func (f *flow) isFor(hosts []string) (every, some bool) {
	switch {
	case hosts == nil:
		return true, true
	case f.hosts == nil:
		return false, true
	}
	every = true
	for _, host := range f.hosts {
		all, any := matchesHost(hosts, host)
		every, some = every && all, some || any
	}
	if slices.ContainsFunc(hosts, isPlaceholder) || slices.ContainsFunc(f.hosts, isPlaceholder) {
		some = true
	}
	return every, some
}

func isPlaceholder(host string) bool { return strings.Contains(host, "{") }

func (f *flow) handlers(list []*handlerConfig, rs arrivals) arrivals {
	for _, h := range list {
		if rs == 0 {
			break
		}
		rs = f.handler(h, rs)
	}
	return rs
}

// wrappers are handlers that let requests go on.
var wrappers = []string{
	"copy_response_headers", "encode", "headers", "log_append", "map", "push", "request_body", "templates", "timeouts", "tracing", "vars", "acme_server",
}

// answerers are handlers that answer.
var answerers = []string{"file_server", "metrics", "copy_response"}

// handler gives what goes on behind a handler.
func (f *flow) handler(h *handlerConfig, rs arrivals) arrivals {
	switch h.kind {
	case "keystile":
		if h != f.target {
			return rs.by(elsewhere)
		}
		f.came |= rs
		return rs.by(passed)
	case "authentication":
		return rs&(passed|passedRewritten) | (rs & unguarded << 2) | rs&(elsewhere|elsewhereRewritten)
	case "subroute", "invoke":
		return f.routes(f.server.inside(h), rs)
	case "rewrite":
		if h.rewrites == "" || f.only != nil && f.only != h {
			return rs
		}
		if rs&fresh&^passed != 0 && !slices.Contains(f.rewriters, h) {
			f.rewriters = append(f.rewriters, h)
		}
		if rs = rs.rewritten(); h.fixed {
			return elsewhere<<1*(rs>>1&1) | rs&^openRewritten
		}
		return rs
	case "intercept":
		f.routes(h.routes, rs)
		return rs
	case "reverse_proxy":
		if h.asks {
			return rs&^unguarded | (rs & unguarded << 2)
		}
		for _, u := range h.upstream {
			if f.reached[u]&unguarded == 0 && rs&unguarded != 0 {
				f.by[u] = f.matcher
			}
			f.reached[u] |= rs
		}
		f.routes(h.routes, rs)
		return 0
	case "error":
		f.failed |= rs
		return 0
	case "static_response":
		if h.location != "" && rs&unguarded != 0 {
			f.redirects = append(f.redirects, h)
		}
		return 0
	}
	if slices.Contains(answerers, h.kind) && !h.passes {
		return 0
	}
	if !slices.Contains(wrappers, h.kind) && !h.passes {
		f.unknown[h] |= rs
		f.routes(h.routes, rs)
	}
	return rs
}
