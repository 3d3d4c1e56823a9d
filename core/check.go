package core

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// check is one request on its way through the steps. It is used again, so that
// what goes through interfaces and function values costs no allocation.
type check struct {
	verifier *Verifier
	request  *Request
	decision Decision
	snapshot *snapshot
	now      time.Time

	environments policy.Set // whose keys work on the request's host
	method       shape.Method
	path         shape.Path
	match        policy.Match

	step step // that it has come to, for [Verifier.Explain]

	lines []Header // every one
	long  []int    // those that could hold an API key under a name that means nothing

	key       string // the API key
	kind, env int    // what its prefix says
	digest    credential.Digest
	entry     *entry

	standsFor *credential.Digest // of the key that key stands for, in [Verifier.ExplainKey] alone
}

var checks = sync.Pool{New: func() any { return new(check) }}

// decide runs the steps, and notes which it has come to.
func (c *check) decide() policy.Reason {
	if reason := c.transport(); reason != policy.OK {
		return reason
	}
	c.step = stepBundle
	if reason := c.inForce(); reason != policy.OK {
		return reason
	}
	c.step = stepShape
	if reason := c.shape(); reason != policy.OK {
		return reason
	}
	c.step = stepOneRequest
	if reason := c.oneRequest(); reason != policy.OK {
		return reason
	}
	c.step = stepRoute
	c.route()
	if c.decision.Outcome != Deny {
		return policy.OK // a public route, or a preflight: it ends here
	}
	c.step = stepCredential
	if reason := c.findKey(); reason != policy.OK {
		return reason
	}
	c.step = stepKeyElsewhere
	if reason := c.keyElsewhere(); reason != policy.OK {
		return reason
	}
	c.step = stepLookup
	if reason := c.lookup(); reason != policy.OK {
		return reason
	}
	c.step = stepValidity
	if reason := c.validity(); reason != policy.OK {
		return reason
	}
	c.step = stepCustomerToken
	if reason := c.customerToken(); reason != policy.OK {
		return reason
	}
	c.step = stepPermission
	if reason := c.permission(); reason != policy.OK {
		return reason
	}
	c.decision.Outcome = Allow
	c.decision.Set = c.upstream()
	return policy.OK
}

// transport is step 1: HTTPS, by the connection alone, and not before the handshake
// is complete, by the connection or by what a proxy in front says of its own.
func (c *check) transport() policy.Reason {
	if !c.request.TLS && !c.terminated() {
		return policy.Plaintext
	}
	if c.lines == nil {
		c.lines = c.request.Headers.Lines()
	}
	if c.request.EarlyData || c.has("Early-Data") { // RFC 8470 section 5.1
		return policy.EarlyData
	}
	return policy.OK
}

// terminated says whether a listed proxy in front ended TLS.
func (c *check) terminated() bool {
	if !c.verifier.MayTerminate(c.request.Peer) {
		return false
	}
	c.lines = c.request.Headers.Lines()
	n, proto := count(c.lines, "X-Forwarded-Proto")
	return n == 1 && (proto == "https" || proto == "wss")
}

// MayTerminate says whether peer is a proxy that may have ended TLS: only then are
// headers looked at of a request that came without it.
func (v *Verifier) MayTerminate(peer netip.Addr) bool {
	peer = peer.Unmap()
	return slices.ContainsFunc(v.config.TLSTerminators, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// inForce demands that there is a bundle, and that it is in force.
func (c *check) inForce() policy.Reason {
	if c.snapshot == nil {
		return policy.NoBundle
	}
	c.now = c.verifier.config.Now()
	err := c.snapshot.bundle.CheckTime(c.now, c.verifier.config.ClockSkew, c.verifier.config.MaxAge)
	switch {
	case err == nil:
		return policy.OK
	case errors.Is(err, bundle.ErrExpired):
		return policy.BundleExpired
	}
	c.decision.Err = err
	return policy.StaleBundle
}

// shape is step 2: a method that is known, one host that is served, a path and
// query in canonical form.
func (c *check) shape() policy.Reason {
	if c.request.Rewritten {
		c.decision.Err = errRewritten
		return policy.Internal
	}
	var known bool
	if c.method, known = shape.ParseMethod(c.request.Method); !known {
		return policy.Malformed
	}
	var ok bool
	if ok = c.path.Parse(c.request.Path); !ok || !shape.CanonicalQuery(c.request.Query) {
		return policy.Malformed
	}
	var served bool
	host := c.request.Authority
	another := c.has("Host")
	c.environments, served = c.snapshot.bundle.Policy.HostEnvironments(host)
	if !served || !c.snapshot.bundle.Policy.NamesHosts() || another {
		// It is not, letter by letter, a name of the policy's.
		if host, ok = shape.CanonicalHost(c.request.Authority); !ok {
			return policy.Malformed
		}
		for i := range c.lines {
			if l := &c.lines[i]; l.Is("Host") {
				if other, ok := shape.CanonicalHost(l.Value); !ok || other != host {
					return policy.Malformed // R24
				}
			}
		}
		if c.environments, served = c.snapshot.bundle.Policy.HostEnvironments(host); !served {
			return policy.Misdirected
		}
	}
	if c.request.SNI != "" && c.request.SNI != host {
		sni, ok := shape.CanonicalHost(c.request.SNI)
		if !ok || sni != shape.HostName(host) {
			return policy.Misdirected
		}
	}
	return policy.OK
}

var errRewritten = errors.New("the request was rewritten before keystile saw it: in a Caddyfile, put both into `route { … }` with keystile first, or set the global option `order keystile first`; set `rewritten` if the policy speaks of the new path")

// route is step 3: the route, if there is one. A public route, and a preflight that
// the edge answers, have their outcome then.
func (c *check) route() {
	p := c.snapshot.bundle.Policy
	if c.method == shape.OPTIONS && c.preflight(p) {
		return
	}
	p.Match(&c.path, c.method, &c.match)
	if c.match.Route == nil {
		return
	}
	c.decision.Route = c.match.Route.Name
	c.decision.keepToken = c.match.Route.Token
	if c.match.Route.Public {
		c.decision.Outcome = Allow
	}
}

func (c *check) preflight(p *policy.Policy) bool {
	if !c.has("Origin") || !c.has("Access-Control-Request-Method") {
		return false
	}
	methods, token := p.Preflight(&c.path)
	if methods == 0 {
		return false
	}
	var names, fields []string
	for m, name := range shape.MethodNames {
		if methods.Has(shape.Method(m)) {
			names = append(names, name)
			if shape.Method(m) == shape.GET {
				names = append(names, "HEAD")
			}
		}
	}
	for _, s := range p.Sources {
		fields = append(fields, s.Name)
	}
	if token && !slices.Contains(fields, p.CustomerToken.Source.Name) {
		fields = append(fields, p.CustomerToken.Source.Name)
	}
	fields = append(fields, "Content-Type")
	c.decision.Outcome = Respond
	c.decision.Status = 204
	c.decision.Header = []Header{
		{Name: "Access-Control-Allow-Origin", Value: "*"},
		{Name: "Access-Control-Allow-Methods", Value: strings.Join(names, ", ")},
		{Name: "Access-Control-Allow-Headers", Value: strings.Join(fields, ", ")},
	}
	return true
}

// findKey is step 4: exactly one API key, where the policy wants it.
func (c *check) findKey() policy.Reason {
	p := c.snapshot.bundle.Policy
	g := p.Grammar()
	if c.path.MayHoldKey() && g.WithinEncoded(c.request.Path) || c.request.Query != "" && g.WithinEncoded(c.request.Query) {
		return policy.InURL
	}
	for i := range c.lines {
		if l := &c.lines[i]; l.Is("Cookie") && g.WithinEncoded(l.Value) {
			return policy.InCookie
		}
	}
	value, lines, ok := credential.Find(p.Sources, c.lines)
	switch {
	case lines > 1:
		return policy.Multiple
	case lines == 0:
		return policy.Missing
	case !ok:
		return policy.BadFormat
	}
	if c.kind, c.env, ok = g.Split(value); !ok {
		return policy.BadFormat
	}
	c.key, c.decision.key = value, value
	return policy.OK
}

// validity is the rest of step 5, for a key that is in the bundle.
func (c *check) validity() policy.Reason {
	e := c.entry
	c.decision.Key, c.decision.entry = &e.key, e
	now := c.now.Unix()
	switch {
	case e.status == bundle.Revoked:
		return policy.Revoked
	case now >= e.expires:
		return policy.Expired
	case now < e.notBefore:
		return policy.NotYetValid
	case !c.environments.Has(c.env):
		return policy.WrongEnvironment
	}
	return policy.OK
}

// customerToken is step 6.
func (c *check) customerToken() policy.Reason {
	if c.match.Route == nil || !c.match.Route.Token {
		return policy.OK
	}
	t := c.snapshot.bundle.Policy.CustomerToken
	n, line := count(c.lines, t.Source.Header)
	if n == 0 {
		return policy.TokenMissing
	}
	raw, ok := t.Source.Value(line)
	if n > 1 || !ok {
		return policy.TokenInvalid
	}
	claims, err := c.verifier.tokens.Verify(t, c.snapshot.bundle.PolicyNote.PolicyHash, raw, c.now)
	if err != nil || !claims.Bound(t, c.entry.key.Tenant, c.entry.key.Environment, c.entry.key.ID) {
		return policy.TokenInvalid
	}
	if !c.now.Before(claims.Expires) {
		return policy.TokenExpired
	}
	c.decision.Customer = claims.Subject
	return policy.OK
}

// permission is step 7: what the key may do.
func (c *check) permission() policy.Reason {
	p, route, key := c.snapshot.bundle.Policy, c.match.Route, &c.entry.key
	switch {
	case route == nil && !p.UnroutedKinds.Has(c.kind):
		return policy.WrongKind
	case route == nil:
		return policy.NoRoute
	case !route.Kinds.Has(c.kind):
		return policy.WrongKind
	case c.entry.limited && !c.addressAllowed(c.entry.record.Prefixes):
		return policy.IP
	case c.entry.limited && !c.originAllowed():
		return policy.Referrer
	case c.entry.limited && !c.endpointAllowed():
		return policy.Endpoint
	case route.TenantParam != "" && (key.Tenant == "" || !c.match.ParamIs(route.TenantParam, key.Tenant)):
		return policy.Tenant
	case !c.scopeAllowed(route, p.Kinds[c.kind].Scoped):
		return policy.Scope
	}
	return policy.OK
}

func (c *check) addressAllowed(allowed []netip.Prefix) bool {
	if len(allowed) == 0 {
		return true
	}
	if c.request.ClientIP == nil {
		return false
	}
	ip := c.request.ClientIP().Unmap() // R41
	for _, p := range allowed {
		if p.Contains(ip) { // never for no address, or one with a zone (R40)
			return true
		}
	}
	return false
}

func (c *check) originAllowed() bool {
	if len(c.entry.referrers) == 0 {
		return true
	}
	var origin, referer []string
	for _, l := range c.lines {
		switch {
		case l.Is("Origin"):
			origin = append(origin, l.Value)
		case l.Is("Referer"):
			referer = append(referer, l.Value)
		}
	}
	for _, o := range c.entry.referrers {
		if o.Allows(origin, referer) {
			return true
		}
	}
	return false
}

func (c *check) endpointAllowed() bool {
	if len(c.entry.endpoints) == 0 {
		return true
	}
	for _, e := range c.entry.endpoints {
		if e.Matches(c.method, &c.path) {
			return true
		}
	}
	return false
}

func (c *check) scopeAllowed(route *policy.Route, scoped bool) bool {
	if route.OnlyUnlimited && c.entry.limited {
		return false
	}
	if !scoped {
		return true
	}
	demand := &route.Demands[c.method]
	switch {
	case demand.Free:
		return true
	case demand.OwnKey != "":
		return c.match.ParamIs(demand.OwnKey, c.entry.key.ID)
	}
	for i := range demand.Scopes {
		if unmet := demand.Scopes[i].Unmet(c.entry.scopes, &c.match); unmet != "" {
			c.decision.RequiredScope = unmet
			return false
		}
	}
	return len(demand.Scopes) > 0
}

// upstream is what the next handler learns of the caller. All but the customer
// is the same at every request, and made once.
func (c *check) upstream() []Header {
	set := c.entry.upstream
	if name := c.snapshot.bundle.Policy.Identity.Customer; c.decision.Customer != "" && name != "" {
		set = append(slices.Clip(set), Header{Name: name, Value: c.decision.Customer})
	}
	return set
}

// has says whether the request has a line of the field called name.
func (c *check) has(name string) bool {
	for i := range c.lines {
		if c.lines[i].Is(name) {
			return true
		}
	}
	return false
}

// count is how many lines there are of the field called name, and the first one's
// value.
func count(lines []Header, name string) (n int, first string) {
	for i := range lines {
		if l := &lines[i]; l.Is(name) {
			if n++; n == 1 {
				first = l.Value
			}
		}
	}
	return n, first
}
