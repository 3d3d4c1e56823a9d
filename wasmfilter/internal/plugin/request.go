package plugin

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Action is what becomes of a request's headers.
type Action uint8

// The actions.
const (
	// Continue lets the request go on.
	Continue Action = iota
	// Stop says that the client has been answered: nothing goes on.
	Stop
	// Wait says that the request waits for a node.
	Wait
)

// body is what comes behind a request's headers.
type body struct {
	passed   bool // it is for somebody else's host
	decided  bool
	decision core.Decision
	trailers bool // they have come before the decision
}

// Request decides the request with the number id, when its headers have come; more
// says that a body or trailers follow. Whatever goes wrong is a denial.
func (p *Plugin) Request(id uint32, more bool) Action {
	if more {
		p.bodies[id] = new(body)
	}
	return p.handle(id, true)
}

// Trailers takes from a request's trailers what must not go on, when they have come
// (R30).
func (p *Plugin) Trailers(id uint32) (action Action) {
	defer p.recovered(&action)
	b := p.bodies[id]
	switch {
	case b == nil:
		return p.unavailable() // nothing was said to follow
	case b.passed:
		return Continue
	case !b.decided:
		b.trailers = true
		return Wait
	}
	return p.filterTrailers(&b.decision)
}

// Done forgets the request with the number id.
func (p *Plugin) Done(id uint32) {
	delete(p.bodies, id)
	for _, e := range p.guards {
		if e.source != nil {
			e.source.gone(id)
		}
	}
}

// recovered makes a panic a denial.
func (p *Plugin) recovered(action *Action) {
	if v := recover(); v != nil {
		p.host.Log(Error, Line("panic", "error", v))
		*action = p.unavailable()
	}
}

// handle decides a request; mayWait says whether it may wait for a node.
func (p *Plugin) handle(id uint32, mayWait bool) (action Action) {
	defer p.recovered(&action)
	p.request = core.Request{ClientIP: p.clientIP}
	if len(p.host.Property("connection", "tls_version")) == 0 {
		return p.handlePlain(id)
	}
	return p.handleTLS(id, mayWait)
}

// handlePlain refuses a request by plain HTTP. No header is read (R2): whose answer it
// is depends on the host alone.
func (p *Plugin) handlePlain(id uint32) Action {
	if p.isReady(string(p.host.Property("request", "path"))) {
		return p.ready()
	}
	g, nobodys := p.guardFor(string(p.host.Property("request", "host")))
	if nobodys && p.config.OtherHosts == pass {
		return p.pass(id)
	}
	return p.decide(g, id, false)
}

func (p *Plugin) handleTLS(id uint32, mayWait bool) Action {
	lines, err := p.host.RequestHeaders()
	if err != nil {
		p.host.Log(Error, Line("the request's headers cannot be read", "error", err))
		return p.unavailable()
	}
	r := &p.request
	r.TLS = true
	if take(lines, r) {
		r.HTTP11 = string(p.host.Property("request", "protocol")) == "HTTP/1.1"
	}
	if p.config.CheckSNI {
		r.SNI = string(p.host.Property("connection", "requested_server_name"))
	}
	if p.isReady(r.Path) {
		return p.ready()
	}
	g, nobodys := p.guardFor(r.Authority)
	if nobodys && p.config.OtherHosts == pass {
		return p.pass(id)
	}
	return p.decide(g, id, mayWait)
}

// pass lets a request for somebody else's host go on as it is.
func (p *Plugin) pass(id uint32) Action {
	if b := p.bodies[id]; b != nil {
		b.passed = true
	}
	return Continue
}

func (p *Plugin) isReady(path string) bool {
	return p.config.ReadyPath != "" && path == p.config.ReadyPath
}

func (p *Plugin) decide(g *guard, id uint32, mayWait bool) Action {
	d := g.verifier.Verify(&p.request)
	if d.Reason == policy.NodeMissing && mayWait && g.wait(p, id, d.Err) {
		return Wait
	}
	g.requests[d.Reason]++
	if d.Outcome != core.Allow {
		return p.answer(g, &d)
	}
	if d.Key != nil {
		g.used.note(d.Key.ID)
	}
	action := p.forward(&d)
	if b := p.bodies[id]; b != nil {
		b.decided, b.decision = true, d
		if b.trailers && action == Continue {
			action = p.filterTrailers(&d)
		}
	}
	return action
}

// wait fetches the node that a decision lacks, and says whether the request can
// wait for it.
func (g *guard) wait(p *Plugin, id uint32, err error) bool {
	var node *bundle.NodeError
	return g.source != nil && errors.As(err, &node) && node.Missing && g.source.want(node.Node, id, p.arrived)
}

// arrived decides the requests anew that have waited for a node. Without it they
// are denied.
func (p *Plugin) arrived(requests []uint32, ok bool) {
	for _, id := range requests {
		if p.host.Select(id) != nil {
			continue // it has ended
		}
		if p.handle(id, ok) == Continue {
			p.host.Resume(id)
		}
	}
}

// ready answers whether every bundle is in force.
func (p *Plugin) ready() Action {
	status, body := uint32(200), "ready\n"
	for _, e := range p.guards {
		if err := e.verifier.Status(); err != nil {
			status, body = 503, e.name+": "+err.Error()+"\n"
			break
		}
	}
	p.host.Respond(status, [][2]string{{"content-type", "text/plain"}, {"cache-control", "no-store"}}, []byte(body))
	return Stop
}

// guardFor is the guard that decides requests for a host; nobodys is true if the host is
// certainly nobody's.
func (p *Plugin) guardFor(authority string) (g *guard, nobodys bool) {
	if len(p.guards) == 1 && p.config.OtherHosts != pass {
		return p.guards[0], false
	}
	i, nobodys := p.hosts.Find(authority)
	return p.guards[i], nobodys
}

// forward makes the request what the upstream gets: without the API key and
// whatever clients sent under the names of identity headers, with those that say who
// calls.
func (p *Plugin) forward(d *core.Decision) Action {
	if p.filter(p.request.Headers.Lines(), d.Line, p.host.RemoveRequestHeader, p.host.AddRequestHeader) != nil {
		return p.unavailable()
	}
	for _, h := range d.Set {
		if p.host.SetRequestHeader(h.Name, h.Value) != nil {
			return p.unavailable()
		}
	}
	if p.config.FilterState {
		p.tell(d)
	}
	return Continue
}

func (p *Plugin) filterTrailers(d *core.Decision) Action {
	lines, err := p.host.RequestTrailers()
	if err == nil {
		err = p.filter(lines, func(name, value string) (string, bool) { return value, d.Trailer(name, value) },
			p.host.RemoveRequestTrailer, p.host.AddRequestTrailer)
	}
	if err != nil {
		return p.unavailable()
	}
	return Continue
}

// filter removes lines, or replaces them, as becomes says. A proxy removes all lines
// of a name at once, so that those that stay are added again.
func (p *Plugin) filter(lines []core.Header, becomes func(name, value string) (string, bool), remove func(string) error, add func(name, value string) error) error {
	p.done = p.done[:0]
	for i := range lines {
		name := lines[i].Name
		if to, ok := becomes(name, lines[i].Value); ok && to == lines[i].Value || slices.Contains(p.done, name) {
			continue
		}
		p.done = append(p.done, name)
		if err := remove(name); err != nil {
			return err
		}
		for _, l := range lines {
			if to, ok := becomes(name, l.Value); l.Name == name && ok {
				if err := add(name, to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tell gives the decision to later filters and to the access log, as the
// property "keystile", which is Envoy's filter state "wasm.keystile".
func (p *Plugin) tell(d *core.Decision) {
	key := ""
	if d.Key != nil {
		key = d.Key.ID
	}
	p.host.SetProperty("keystile", []byte("reason="+d.Reason.String()+" request_id="+d.RequestID+" key_id="+key))
}

// answer sends what the client gets for a request that does not go on.
func (p *Plugin) answer(g *guard, d *core.Decision) Action {
	if d.Outcome == core.Deny {
		p.tell(d)
		p.log(g, d)
	}
	return p.respond(d)
}

// unavailable answers where the decision itself failed.
func (p *Plugin) unavailable() Action {
	d := core.Unavailable()
	return p.respond(&d)
}

func (p *Plugin) respond(d *core.Decision) Action {
	p.response = p.response[:0]
	for _, h := range d.Header {
		p.response = append(p.response, [2]string{strings.ToLower(h.Name), h.Value})
	}
	if d.Close {
		p.response = append(p.response, [2]string{"connection", "close"})
	}
	if err := p.host.Respond(uint32(d.Status), p.response, d.Body); err != nil {
		p.host.Log(Error, Line("the answer cannot be sent", "error", err))
	}
	return Stop
}

// log writes one line for a denial, by which support finds a Request-Id. Envoy's own
// name of the request stands beside it: it finds the line of the access log.
func (p *Plugin) log(g *guard, d *core.Decision) {
	r := p.request
	if !r.TLS { // nothing of it was needed to decide, and no header is read (R2)
		r.Method, r.Authority = string(p.host.Property("request", "method")), string(p.host.Property("request", "host"))
		r.Path, _, _ = strings.Cut(string(p.host.Property("request", "path")), "?")
	}
	fields := append(make([]any, 0, 32), "status", d.Status, "bundle", g.name)
	for _, f := range d.Fields(&r) {
		fields = append(fields, f.Name, f.Value)
	}
	if r.TLS {
		if id := string(p.host.Property("request", "id")); id != "" {
			fields = append(fields, "x_request_id", d.Show(id))
		}
	}
	level := Info
	if d.Reason >= policy.NoBundle {
		level = Error
	}
	p.host.Log(level, Line("denied", fields...))
}

// clientIP is the address that limits to IP addresses are about.
func (p *Plugin) clientIP() netip.Addr {
	addr, real := parsePeer(p.host.Property("source", "address"))
	if !real && p.config.ClientIP != forwarded {
		return netip.Addr{}
	}
	return addr
}
