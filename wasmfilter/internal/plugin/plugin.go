// Package plugin is Keystile inside of a proxy that speaks proxy-wasm: it
// translates between the proxy, behind a small [Host] interface, and core, which
// decides.
//
// Make a [Plugin] with [New], give it its configuration once with
// [Plugin.Configure], and call [Plugin.Request] for the headers of every request
// and [Plugin.Tick] as often as it asks for it.
package plugin

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// Plugin decides requests. Like everything in a proxy-wasm module it belongs to
// one thread.
type Plugin struct {
	host   Host
	config *Config
	guards []*guard // by name

	// One request at a time, so that its parts are used again.
	request  core.Request
	done     []string // names of lines that were seen to
	response [][2]string

	bodies map[uint32]*body // of requests that are more than their headers

	hurried bool // a tick was asked for at once
}

// guard is one bundle's verifier.
type guard struct {
	name     string
	verifier *core.Verifier
	source   *source // nil where the bundle is in the configuration
	used     *lastUsed
	requests [policy.NumReasons]uint64 // since the last tick
	counters [policy.NumReasons]Counter
	expires  Gauge
	version  Gauge
	keys     Gauge
	inForce  Gauge
	status   string    // logged last
	begun    time.Time // when a bundle was first looked for
}

// body is what comes behind a request's headers.
type body struct {
	passed   bool // it is for somebody else's host
	decided  bool
	decision core.Decision
	trailers bool // they have come before the decision
}

// tickInterval is how often counters are written out and the verifiers' caches
// do what they put off.
const tickInterval = 100 * time.Millisecond

// New returns a Plugin that denies everything until it is configured.
func New(h Host) *Plugin {
	return &Plugin{host: h, bodies: make(map[uint32]*body)}
}

// Configure takes a configuration over. With an error the proxy must not start,
// or must refuse the update.
func (p *Plugin) Configure(raw []byte) error {
	c, err := parseConfig(raw)
	if err != nil {
		return err
	}
	p.config = c
	for _, name := range slices.Sorted(maps.Keys(c.Bundles)) {
		e, err := p.newGuard(name, c.Bundles[name])
		if err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
		p.guards = append(p.guards, e)
	}
	if err := p.host.Tick(uint32(tickInterval.Milliseconds())); err != nil {
		return fmt.Errorf("the proxy gives no ticks: %w", err)
	}
	return nil
}

func (p *Plugin) newGuard(name string, c *BundleConfig) (*guard, error) {
	trust, err := c.trust(name)
	if err != nil {
		return nil, err
	}
	e := &guard{name: name, used: newLastUsed(p.host, name)}
	if e.verifier, err = core.New(c.core()); err != nil {
		return nil, err
	}
	e.define(p.host)
	if len(c.Origins) > 0 {
		e.source, err = newSource(p.host, name, trust, c, p.hurry)
		return e, err
	}
	b, err := c.inline(trust)
	if err != nil {
		return nil, err
	}
	if err := e.use(p.host, b); err != nil {
		return nil, fmt.Errorf("inline: %w", err)
	}
	return e, nil
}

// use activates a bundle.
func (g *guard) use(h Host, b *bundle.Bundle) error {
	if err := g.verifier.Activate(b); err != nil {
		return err
	}
	h.Log(Info, Line("bundle in use", "bundle", g.name, "policy", b.Policy.Name, "version", b.Manifest.Version, "keys", b.Manifest.Keys, "expires", b.Manifest.Expires))
	return nil
}

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
	e, served := p.guardFor(string(p.host.Property("request", "host")))
	if !served && p.config.OtherHosts == pass {
		return p.pass(id)
	}
	return p.decide(e, id, false)
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
	e, served := p.guardFor(r.Authority)
	if !served && p.config.OtherHosts == pass {
		return p.pass(id)
	}
	return p.decide(e, id, mayWait)
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

func (p *Plugin) decide(e *guard, id uint32, mayWait bool) Action {
	d := e.verifier.Verify(&p.request)
	if d.Reason == policy.NodeMissing && mayWait && e.wait(p, id, d.Err) {
		return Wait
	}
	e.requests[d.Reason]++
	if d.Outcome != core.Allow {
		return p.answer(e, &d)
	}
	if d.Key != nil {
		e.used.note(d.Key.ID)
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

// guardFor is the edge whose policy names the host. If none does it is the first
// one, which says so. served is false if the host is certainly nobody's, so that it
// may be passed: not one that is malformed, nor a policy's name with another port,
// nor any while a bundle is not here yet.
func (p *Plugin) guardFor(authority string) (e *guard, served bool) {
	if len(p.guards) == 1 && p.config.OtherHosts != pass {
		return p.guards[0], true
	}
	host, ok := shape.CanonicalHost(authority)
	var unknown, near *guard
	for _, e := range p.guards {
		b := e.verifier.Bundle()
		if b == nil {
			unknown = e
			continue
		}
		if !ok {
			continue
		}
		if _, served := b.Policy.HostEnvironments(host); served {
			return e, true
		}
		if slices.ContainsFunc(b.Policy.Hosts, func(h policy.Host) bool { return shape.HostName(h.Name) == shape.HostName(host) }) {
			near = e
		}
	}
	switch {
	case near != nil:
		return near, true
	case unknown != nil:
		return unknown, true
	}
	return p.guards[0], !ok
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
func (p *Plugin) answer(e *guard, d *core.Decision) Action {
	p.response = p.response[:0]
	for _, h := range d.Header {
		p.response = append(p.response, [2]string{strings.ToLower(h.Name), h.Value})
	}
	if d.Close {
		p.response = append(p.response, [2]string{"connection", "close"})
	}
	if d.Outcome == core.Deny {
		p.tell(d)
		p.log(e, d)
	}
	if err := p.host.Respond(uint32(d.Status), p.response, d.Body); err != nil {
		p.host.Log(Error, Line("the answer cannot be sent", "error", err))
	}
	return Stop
}

// unavailable answers where the decision itself failed.
func (p *Plugin) unavailable() Action {
	p.host.Respond(503, [][2]string{{"content-type", "application/json"}, {"cache-control", "no-store"}, {"retry-after", "5"}},
		[]byte(`{"error":"unavailable"}`))
	return Stop
}

// log writes one line for a denial, by which support finds a Request-Id.
func (p *Plugin) log(e *guard, d *core.Decision) {
	fields := append(make([]any, 0, 16), "request_id", d.RequestID, "reason", d.Reason, "status", d.Status, "bundle", e.name)
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, name, value)
		}
	}
	add("policy", d.Policy())
	add("route", d.Route)
	add("required_scope", d.RequiredScope)
	if d.Key != nil {
		add("key_id", d.Key.ID)
	}
	if d.Err != nil {
		add("error", d.Err.Error())
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

// hurry asks for a tick at once.
func (p *Plugin) hurry() {
	if !p.hurried {
		p.hurried = p.host.Tick(1) == nil
	}
}

// Tick does what requests leave behind.
func (p *Plugin) Tick() {
	defer func() {
		if v := recover(); v != nil {
			p.host.Log(Error, Line("panic", "error", v))
		}
	}()
	if p.hurried {
		p.hurried = false
		p.host.Tick(uint32(tickInterval.Milliseconds()))
	}
	for _, e := range p.guards {
		e.verifier.Wait()
		if e.source != nil {
			if b := e.source.tick(e.verifier.Bundle()); b != nil {
				if err := e.use(p.host, b); err != nil {
					e.source.refuse(err)
				}
			}
		}
		e.used.tick()
		e.tell(p.host)
	}
}
