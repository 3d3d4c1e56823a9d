package core

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/redact"
	"github.com/keystile/keystile/core/shape"
)

// Explanation is a decision with the steps that led to it.
type Explanation struct {
	Decision Decision
	// Steps are those that ran, in their order. The last one ended the decision.
	Steps []Step

	check *check
}

// Step is one step of a decision, as docs/decision.md names it.
type Step struct {
	Name string
	// Reason is [policy.OK] unless the request was denied here.
	Reason policy.Reason
	// Compared is what was compared, in its order. In the step that denied the request
	// the last one does not hold.
	Compared []Comparison
}

// Comparison is something that a step compared with something else.
type Comparison struct {
	// What says in words what was compared with what. It never holds an API key or a
	// customer token.
	What string
	// Holds says whether it is as the step demands.
	Holds bool
}

// Explain decides r exactly as [Verifier.Verify] does, by the same steps, and says of
// each what it compared with what. It is for people who ask why: it is slow.
func (v *Verifier) Explain(r *Request) Explanation { return v.explain(r, nil) }

// ExplainKey is [Verifier.Explain] for r as if it carried, in the policy's first source,
// the key of rec, whose text is not at hand: a key made for this takes its place, and
// rec's digest is looked up.
func (v *Verifier) ExplainKey(r *Request, rec *bundle.Record) (Explanation, error) {
	b := v.Bundle()
	if b == nil {
		return v.Explain(r), nil
	}
	i := b.Policy.KindIndex(rec.Kind)
	if i < 0 {
		return Explanation{}, fmt.Errorf("key %s: the policy has no kind %q", rec.KeyID, rec.Kind)
	}
	instead, err := credential.Generate(b.Policy.Kinds[i].Prefix, rec.Environment)
	if err != nil {
		return Explanation{}, fmt.Errorf("key %s: %w", rec.KeyID, err)
	}
	source, value := b.Policy.Sources[0], instead.Reveal()
	if source.Scheme != "" {
		value = source.Scheme + " " + value
	}
	with := *r
	with.Headers = withLine{r.Headers, Header{Name: source.Name, Value: value}}
	return v.explain(&with, &rec.Digest), nil
}

// withLine are lines with one more.
type withLine struct {
	Headers
	line Header
}

func (w withLine) Lines() []Header { return append(slices.Clone(w.Headers.Lines()), w.line) }

func (v *Verifier) explain(r *Request, standsFor *credential.Digest) Explanation {
	c := &check{verifier: v, request: r, snapshot: v.current.Load(), standsFor: standsFor}
	e := Explanation{Decision: c.verifyOnce(), check: c}
	for s := range c.step + 1 {
		reason := policy.OK
		if s == c.step {
			reason = e.Decision.Reason
		}
		compared := c.compared(s, reason, &e.Decision)
		if last := len(e.Steps) - 1; last >= 0 && e.Steps[last].Name == stepNames[s] {
			e.Steps[last].Reason = reason
			e.Steps[last].Compared = append(e.Steps[last].Compared, compared...)
			continue
		}
		e.Steps = append(e.Steps, Step{stepNames[s], reason, compared})
	}
	return e
}

// verifyOnce is the decision of a check that is used only for it.
func (c *check) verifyOnce() (d Decision) {
	defer func() {
		if p := recover(); p != nil {
			d = c.panicked(p)
		}
	}()
	return c.verify()
}

// Show is s, which is something of the request, unless that holds an API key, a customer
// token or another credential of the request, or what could be one.
func (e *Explanation) Show(s string) string { return e.check.bare(s) }

// step is how far a decision has come.
type step uint8

const (
	stepTransport step = iota
	stepBundle
	stepShape
	stepOneRequest
	stepRoute
	stepCredential
	stepKeyElsewhere
	stepLookup
	stepValidity
	stepCustomerToken
	stepPermission

	numSteps = iota
)

var stepNames = [numSteps]string{
	"transport", "bundle", "shape", "shape", "route", "credential", "credential", "key", "key", "customer_token", "permission",
}

var describe = [numSteps]func(*describer){
	(*describer).transport, (*describer).inForce, (*describer).shape, (*describer).oneRequest, (*describer).route,
	(*describer).credential, (*describer).keyElsewhere, (*describer).lookup, (*describer).validity,
	(*describer).customerToken, (*describer).permission,
}

// compared says what step s compared, when it ended with reason.
func (c *check) compared(s step, reason policy.Reason, d *Decision) []Comparison {
	t := describer{check: c, ended: reason, err: d.Err}
	t.describe(s)
	if t.found != reason {
		// A panic, or what the description does not know of.
		line := "the step ended with " + reason.String()
		if d.Err != nil {
			line += ": " + d.Err.Error()
		}
		t.compared = append(t.compared, Comparison{line, false})
	}
	return t.compared
}

// describer describes one step of a check that has been decided: what the step compared,
// by the same predicates, up to the comparison that ended it.
type describer struct {
	*check
	ended policy.Reason // what the step itself said
	err   error

	compared []Comparison
	found    policy.Reason // of the comparison that does not hold
}

func (t *describer) describe(s step) {
	defer func() { _ = recover() }() // what panicked in the step does so again
	describe[s](t)
}

// that notes a comparison, which is denied with reason if it does not hold.
func (t *describer) that(holds bool, reason policy.Reason, what string, values ...any) bool {
	t.compared = append(t.compared, Comparison{fmt.Sprintf(what, values...), holds})
	if !holds {
		t.found = reason
	}
	return holds
}

// not is [describer.that] for a comparison whose outcome the step alone can know.
func (t *describer) not(reason policy.Reason, what string, values ...any) bool {
	return t.that(t.ended != reason, reason, what, values...)
}

// fact notes what is only said.
func (t *describer) fact(what string, values ...any) { t.that(true, policy.OK, what, values...) }

func (t *describer) transport() {
	c := t.check
	switch {
	case c.request.TLS:
		t.fact("connection: HTTPS")
	case !t.that(c.terminated(), policy.Plaintext, "connection: plain HTTP, from %s", addressOf(c.request.Peer)):
		return
	default:
		t.fact("HTTPS was ended by a listed proxy in front")
	}
	early := c.request.EarlyData || c.has("Early-Data")
	t.that(!early, policy.EarlyData, "no early data, by the connection or by a line of Early-Data")
}

func addressOf(a netip.Addr) string {
	if !a.IsValid() {
		return "an unknown address"
	}
	return a.String()
}

func (t *describer) inForce() {
	c := t.check
	if c.snapshot == nil {
		t.that(false, policy.NoBundle, "bundle: there is none")
		return
	}
	b := c.snapshot.bundle
	t.fact("bundle %s of policy %s: signed %s, expires %s; the clock says %s", b.PolicyNote.Name, b.Policy.Name,
		stamp(time.UnixMilli(b.Manifest.Version)), stamp(time.UnixMilli(b.Manifest.Expires)), stamp(c.now))
	err := b.CheckTime(c.now, c.verifier.config.ClockSkew, c.verifier.config.MaxAge)
	switch {
	case errors.Is(err, bundle.ErrExpired):
		t.that(false, policy.BundleExpired, "%v", err)
	case err != nil:
		t.that(false, policy.StaleBundle, "%v", err)
	}
}

func stamp(at time.Time) string { return at.UTC().Format(time.RFC3339) }

func (t *describer) shape() {
	c, r, p := t.check, t.check.request, t.check.snapshot.bundle.Policy
	if r.Rewritten {
		t.that(false, policy.Internal, "%v", errRewritten)
		return
	}
	_, known := shape.ParseMethod(r.Method)
	if !t.that(known, policy.Malformed, "method %s is one of HEAD, %s", c.show(r.Method), strings.Join(shape.MethodNames[:], ", ")) {
		return
	}
	if !t.that(new(shape.Path).Parse(r.Path), policy.Malformed, "path %s is in the one form that every server reads alike", c.show(r.Path)) ||
		!t.that(shape.CanonicalQuery(r.Query), policy.Malformed, "the query has only characters that a URL can have") {
		return
	}
	host, ok := shape.CanonicalHost(r.Authority)
	if !t.that(ok, policy.Malformed, "host %s is a host name, maybe with a port", c.show(r.Authority)) {
		return
	}
	for _, l := range c.lines {
		if !l.Is("Host") {
			continue
		}
		other, ok := shape.CanonicalHost(l.Value)
		if !t.that(ok && other == host, policy.Malformed, "line Host %s is the same host", c.show(l.Value)) {
			return
		}
	}
	environments, served := p.HostEnvironments(host)
	switch {
	case !served:
		var names []string
		for _, h := range p.Hosts {
			names = append(names, h.Name)
		}
		t.that(false, policy.Misdirected, "host %s: the policy serves %s", c.show(host), strings.Join(names, ", "))
		return
	case !p.NamesHosts():
		t.fact("host %s: the policy serves every host, for %s", c.show(host), namesIn(environments, p.Environments))
	default:
		t.fact("host %s: served, for %s", c.show(host), namesIn(environments, p.Environments))
	}
	if r.SNI != "" {
		sni, ok := shape.CanonicalHost(r.SNI)
		t.that(r.SNI == host || ok && sni == shape.HostName(host), policy.Misdirected, "server name of TLS %s is the host's", c.show(r.SNI))
	}
}

// namesIn are the names of what is in a set.
func namesIn(set policy.Set, names []string) string {
	var in []string
	for i, n := range names {
		if set.Has(i) {
			in = append(in, n)
		}
	}
	if in == nil {
		return "none"
	}
	return strings.Join(in, ", ")
}

func (t *describer) oneRequest() {
	c, p := t.check, t.check.snapshot.bundle.Policy
	asks := false
	for _, l := range c.lines {
		switch p.Field(l.Name) {
		case policy.FieldOverride:
			if !t.that(l.Value == c.request.Method, policy.Malformed, "line %s asks for no other method than %s", c.show(l.Name), c.show(c.request.Method)) {
				return
			}
		case policy.FieldUpgrade:
			asks = asks || namesWebSocket(l.Value)
		}
	}
	if asks {
		t.not(policy.Malformed, "lines of Upgrade ask for a WebSocket: the request is its exact handshake, by HTTP/1.1")
	}
}

func (t *describer) route() {
	c, p := t.check, t.check.snapshot.bundle.Policy
	if c.method == shape.OPTIONS && c.decision.Outcome == Respond {
		t.fact("a CORS preflight of a route that opted in: the edge answers it")
		return
	}
	route := c.match.Route
	if route == nil {
		var others []string
		for m, name := range shape.MethodNames {
			var match policy.Match
			if p.Match(&c.path, shape.Method(m), &match); match.Route != nil {
				others = append(others, name)
			}
		}
		line := "route: none for %s %s, in every way to read this path"
		if others != nil {
			line += "; there is one for " + strings.Join(others, ", ")
		}
		t.fact(line, c.method, c.show(c.request.Path)) // decided in the last step
		return
	}
	var demands []string
	switch {
	case route.Public:
		demands = append(demands, "public, no key is needed")
	default:
		demands = append(demands, "for keys of kind "+namesIn(route.Kinds, kindNames(p)))
	}
	if route.Token {
		demands = append(demands, "with a customer token")
	}
	if route.TenantParam != "" {
		demands = append(demands, "for the tenant {"+route.TenantParam+"}")
	}
	t.fact("route %s, %s %s: %s", route.Name, c.method, c.match.Pattern(), strings.Join(demands, ", "))
}

func kindNames(p *policy.Policy) (names []string) {
	for _, k := range p.Kinds {
		names = append(names, k.Name)
	}
	return names
}

func (t *describer) credential() {
	c, p := t.check, t.check.snapshot.bundle.Policy
	g := p.Grammar()
	inURL := c.path.MayHoldKey() && g.WithinEncoded(c.request.Path) || g.WithinEncoded(c.request.Query)
	inCookie := slices.ContainsFunc(c.lines, func(l Header) bool { return l.Is("Cookie") && g.WithinEncoded(l.Value) })
	if !t.that(!inURL, policy.InURL, "nothing in the URL looks like an API key") ||
		!t.that(!inCookie, policy.InCookie, "nothing in the cookies looks like an API key") {
		return
	}
	var sources []string
	for _, s := range p.Sources {
		sources = append(sources, strings.TrimSuffix(s.Name+": "+s.Scheme, ": "))
	}
	value, lines, ok := credential.Find(p.Sources, c.lines)
	reason := policy.Multiple
	if lines == 0 {
		reason = policy.Missing
	}
	if !t.that(lines == 1, reason, "lines where the policy wants the API key (%s): %d, and one is needed", strings.Join(sources, "; "), lines) ||
		!t.that(ok, policy.BadFormat, "the line with the API key has the form that the policy gives (%s)", strings.Join(sources, "; ")) {
		return
	}
	kind, env, ok := g.Split(value)
	if !t.that(ok, policy.BadFormat, "the API key begins with one of %s, and has the length of a key", strings.Join(heads(p), ", ")) {
		return
	}
	t.fact("the API key is of kind %s in %s, by its prefix", p.Kinds[kind].Name, p.Environments[env])
}

// heads are how the keys of a policy begin.
func heads(p *policy.Policy) (all []string) {
	for _, k := range p.Kinds {
		for _, e := range p.Environments {
			all = append(all, k.Prefix+"_"+e+"_")
		}
	}
	return all
}

func (t *describer) keyElsewhere() {
	c := t.check
	if !t.that(!credential.Holds(c.request.Authority, c.key), policy.Malformed, "the API key is not in the host, too") {
		return
	}
	for _, i := range c.long {
		if l := &c.lines[i]; credential.Holds(l.Value, c.key) {
			if !t.that(!policy.FramesMessage(l.Name), policy.Malformed, "the API key is in the line %s, too: that line can be taken away", c.show(l.Name)) {
				return
			}
		}
	}
}

func (t *describer) lookup() {
	c := t.check
	if c.entry == nil && t.ended != policy.BadFormat && t.ended != policy.Unknown {
		t.that(false, t.ended, "%v", t.err)
		return
	}
	if !t.not(policy.BadFormat, "the API key has the characters and the checksum of one") ||
		!t.not(policy.Unknown, "the API key is one of the %d keys of the bundle", c.snapshot.bundle.Manifest.Keys) {
		return
	}
	k := &c.entry.key
	line := fmt.Sprintf("key %s: kind %s, environment %s", k.ID, k.Kind, k.Environment)
	if k.Tenant != "" {
		line += ", tenant " + k.Tenant
	}
	t.fact("%s", line)
}

func (t *describer) validity() {
	c, e := t.check, t.check.entry
	now := c.now.Unix()
	if !t.that(e.status != bundle.Revoked, policy.Revoked, "status: %s", e.status) {
		return
	}
	expires := "never"
	if e.expires != never {
		expires = stamp(time.Unix(e.expires, 0))
	}
	if !t.that(now < e.expires, policy.Expired, "expires: %s; the clock says %s", expires, stamp(c.now)) {
		return
	}
	if e.notBefore != 0 && !t.that(now >= e.notBefore, policy.NotYetValid, "valid from: %s; the clock says %s", stamp(time.Unix(e.notBefore, 0)), stamp(c.now)) {
		return
	}
	t.that(c.environments.Has(c.env), policy.WrongEnvironment, "environment: %s; this host is for %s", e.key.Environment, namesIn(c.environments, c.snapshot.bundle.Policy.Environments))
}

func (t *describer) customerToken() {
	c := t.check
	if c.match.Route == nil || !c.match.Route.Token {
		t.fact("no customer token is demanded")
		return
	}
	want := c.snapshot.bundle.Policy.CustomerToken
	n, line := count(c.lines, want.Source.Header)
	if !t.that(n > 0, policy.TokenMissing, "lines of %s, for the customer token: %d, and one is needed", want.Source.Name, n) ||
		n > 1 && !t.that(false, policy.TokenInvalid, "lines of %s: %d, and one is needed", want.Source.Name, n) {
		return
	}
	raw, ok := want.Source.Value(line)
	if !t.that(ok, policy.TokenInvalid, "the line of %s has the form that the policy gives (%s)", want.Source.Name, strings.TrimSpace(want.Source.Scheme+" …")) {
		return
	}
	claims, err := c.verifier.tokens.Verify(want, c.snapshot.bundle.PolicyNote.PolicyHash, raw, c.now)
	if !t.that(err == nil, policy.TokenInvalid, "customer token: signed by %s with one of the %d keys of %q, issuer %q, audience %q, already valid, and with every claim that the policy names",
		want.Algorithm, len(want.Keys), want.KeySet, want.Issuer, want.Audience) {
		return
	}
	key := &c.entry.key
	var binds []string
	for _, b := range want.Binds {
		of := map[policy.Binding]string{
			policy.BindTenant: "tenant " + quoted(key.Tenant), policy.BindEnvironment: "environment " + quoted(key.Environment), policy.BindKeyID: "ID " + quoted(key.ID),
		}[b.To]
		binds = append(binds, fmt.Sprintf("%s is the key's %s", b.Claim, of))
	}
	if !t.that(claims.Bound(want, key.Tenant, key.Environment, key.ID), policy.TokenInvalid, "customer token is for this key: %s", strings.Join(binds, ", ")) {
		return
	}
	t.that(c.now.Before(claims.Expires), policy.TokenExpired, "customer token expires: %s; the clock says %s", stamp(claims.Expires), stamp(c.now))
}

func quoted(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func (t *describer) permission() {
	c, p, route, key := t.check, t.check.snapshot.bundle.Policy, t.check.match.Route, &t.check.entry.key
	may := p.UnroutedKinds
	if route != nil {
		may = route.Kinds
	}
	if !t.that(may.Has(c.kind), policy.WrongKind, "kind %s: this can be called by %s", p.Kinds[c.kind].Name, namesIn(may, kindNames(p))) {
		return
	}
	if !t.that(route != nil, policy.NoRoute, "there is a route") {
		return
	}
	if c.entry.limited && !t.restrictions() {
		return
	}
	if route.TenantParam != "" {
		ok := key.Tenant != "" && c.match.ParamIs(route.TenantParam, key.Tenant)
		if !t.that(ok, policy.Tenant, "tenant: the key's is %s, and has to be the {%s} of %s in the path", quoted(key.Tenant), route.TenantParam, c.match.Pattern()) {
			return
		}
	}
	t.scope()
}

// restrictions are those of the key.
func (t *describer) restrictions() bool {
	c, rec := t.check, t.check.entry.record
	if len(rec.Prefixes) > 0 {
		client := "unknown"
		if c.request.ClientIP != nil && c.request.ClientIP().IsValid() {
			client = c.request.ClientIP().String()
		}
		var allowed []string
		for _, p := range rec.Prefixes {
			allowed = append(allowed, p.String())
		}
		if !t.that(c.addressAllowed(rec.Prefixes), policy.IP, "client's address: %s; the key is limited to %s", client, strings.Join(allowed, ", ")) {
			return false
		}
	}
	if len(rec.Referrers) > 0 && !t.that(c.originAllowed(), policy.Referrer, "%s; the key is limited to %s", t.from(), strings.Join(rec.Referrers, ", ")) {
		return false
	}
	return len(rec.Endpoints) == 0 || t.that(c.endpointAllowed(), policy.Endpoint, "endpoint: %s %s; the key is limited to %s", c.method, c.show(c.request.Path), strings.Join(rec.Endpoints, ", "))
}

// from is what the request says of the page that it comes from.
func (t *describer) from() string {
	var said []string
	for _, l := range t.check.lines {
		if l.Is("Origin") || l.Is("Referer") {
			said = append(said, fmt.Sprintf("%s %s", l.Name, t.show(l.Value)))
		}
	}
	if said == nil {
		return "no line of Origin or Referer"
	}
	return strings.Join(said, ", ")
}

func (t *describer) scope() {
	c, p, route := t.check, t.check.snapshot.bundle.Policy, t.check.match.Route
	demand := &route.Demands[c.method]
	granted := c.entry.key.Scopes
	if granted == "" {
		granted = "none"
	}
	var line string
	switch {
	case route.OnlyUnlimited && c.entry.limited:
		line = "scope: the route takes only keys without limits to addresses, referrers and endpoints, and this one has some"
	case !p.Kinds[c.kind].Scoped:
		line = fmt.Sprintf("scope: keys of kind %s need none", p.Kinds[c.kind].Name)
	case demand.Free:
		line = fmt.Sprintf("scope: %s of this route needs none", c.method)
	case demand.OwnKey != "":
		line = fmt.Sprintf("scope: {%s} in the path has to be the key's own ID", demand.OwnKey)
	case len(demand.Scopes) == 0:
		line = fmt.Sprintf("scope: none permits %s of this route; the key has %s", c.method, granted)
	default:
		var needs []string
		for i := range demand.Scopes {
			needs = append(needs, demand.Scopes[i].Scope)
		}
		line = fmt.Sprintf("scope: %s needs %s; the key has %s", c.method, strings.Join(needs, " and "), granted)
		if lacks := c.decision.RequiredScope; lacks != "" {
			line += "; it lacks " + c.bare(lacks)
		}
	}
	t.that(c.scopeAllowed(route, p.Kinds[c.kind].Scoped), policy.Scope, "%s", line)
}

// show is bare in quotes, and not longer than a line.
func (c *check) show(s string) string {
	if c.secret(s) {
		return hidden
	}
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// bare is s, or says that it is not shown: see [Explanation.Show].
func (c *check) bare(s string) string {
	if c.secret(s) {
		return hidden
	}
	return s
}

const hidden = "(not shown: it may hold a key)"

// secret says whether s holds what looks like an API key, or the beginning of one, or a
// credential of the request. Without a policy nothing is known of keys.
func (c *check) secret(s string) bool {
	if c.snapshot == nil {
		return true
	}
	p := c.snapshot.bundle.Policy
	if p.Grammar().MayHold(s) || redact.Default.With(p).Text(s) != s {
		return true
	}
	folded := strings.ToLower(ascii.Unescape(s))
	for _, env := range p.Environments {
		if strings.Contains(folded, "_"+env+"_") { // also of a key that is cut, mistyped or in capitals
			return true
		}
	}
	for i := range c.lines {
		for _, secret := range credentials(p, &c.lines[i]) {
			if len(secret) >= shortestSecret && credential.Holds(s, secret) {
				return true
			}
		}
	}
	return false
}

// shortestSecret is from where on a credential is looked for: all text has short ones.
const shortestSecret = 8

// credentials are what a line may hold of secrets.
func credentials(p *policy.Policy, l *Header) []string {
	switch {
	case l.Is("Cookie"):
		var values []string
		for pair := range strings.SplitSeq(l.Value, ";") {
			_, value, _ := strings.Cut(pair, "=")
			values = append(values, value)
		}
		return values
	case l.Is("Authorization"), l.Is("Proxy-Authorization"), p.CustomerToken != nil && l.Is(p.CustomerToken.Source.Header),
		slices.ContainsFunc(p.Sources, func(s credential.Source) bool { return l.Is(s.Header) }):
		_, rest, _ := strings.Cut(l.Value, " ")
		return []string{l.Value, rest}
	}
	return nil
}
