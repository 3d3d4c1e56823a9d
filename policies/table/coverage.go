package table

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// Coverage lists what of a policy no row reaches: kinds, routes with each kind,
// scopes, answers, reasons and hosts. Outcomes are those of the core host.
// Reasons of the edge's own state (429, 503), and those that the policy cannot
// produce, are left out.
func Coverage(p *policy.Policy, outcomes []RowResult) (missing []string) {
	reached := make(map[string]bool)
	for _, o := range outcomes {
		if o.Exchange.Want.Parser {
			continue
		}
		for _, what := range reaches(p, o) {
			reached[what] = true
		}
	}
	for _, what := range wanted(p) {
		if !reached[what] {
			missing = append(missing, what)
		}
	}
	return missing
}

func reaches(p *policy.Policy, o RowResult) []string {
	r := o.Result
	out := []string{"reason " + r.Reason, "kind " + r.Kind, "route " + r.Route}
	if r.Route != "" && r.Kind != "" {
		out = append(out, fmt.Sprintf("route %s with kind %s", r.Route, r.Kind))
	}
	if r.RequiredScope != "" {
		out = append(out, "answer to missing scope "+r.RequiredScope)
	}
	if r.Reason != reasonOK {
		return out
	}
	if host, ok := shape.CanonicalHost(o.Exchange.Authority); ok {
		out = append(out, "host "+host)
	}
	if m, known := shape.ParseMethod(o.Exchange.Method); known {
		out = append(out, fmt.Sprintf("scopes of route %s for %s", r.Route, m))
	}
	for _, granted := range strings.Fields(strings.Join(r.Upstream.Header[p.Identity.Scopes], " ")) {
		for _, declared := range p.Grants.Scopes {
			if _, ok := policy.MatchScope(declared, granted); ok {
				out = append(out, "scope "+declared)
			}
		}
	}
	return out
}

// wanted is all that a table of the policy should reach.
func wanted(p *policy.Policy) (out []string) {
	for r := policy.Plaintext; r < policy.RateLimited; r++ {
		if possible(p, r) {
			out = append(out, "reason "+r.String())
		}
	}
	if slices.ContainsFunc(p.Routes, func(r policy.Route) bool { return r.CORS }) {
		out = append(out, "reason "+reasonPreflight)
	}
	for _, k := range p.Kinds {
		out = append(out, "kind "+k.Name)
	}
	for _, h := range p.Hosts {
		out = append(out, "host "+h.Name)
	}
	for _, s := range p.Grants.Scopes {
		out = append(out, "scope "+s)
	}
	for _, r := range p.Answers[policy.Scope].ByRequired {
		out = append(out, "answer to missing scope "+r.Scope)
	}
	for i := range p.Routes {
		out = append(out, wantedOfRoute(p, &p.Routes[i])...)
	}
	return out
}

func wantedOfRoute(p *policy.Policy, r *policy.Route) (out []string) {
	if r.Public {
		return []string{"route " + r.Name}
	}
	scoped := false
	for i, k := range p.Kinds {
		out = append(out, fmt.Sprintf("route %s with kind %s", r.Name, k.Name))
		scoped = scoped || k.Scoped && r.Kinds.Has(i)
	}
	for m := range shape.Method(shape.NumMethods) {
		d := &r.Demands[m]
		if scoped && r.Methods.Has(m) && (d.Free || d.OwnKey != "" || len(d.Scopes) > 0) {
			out = append(out, fmt.Sprintf("scopes of route %s for %s", r.Name, m))
		}
	}
	return out
}

// possible says whether the policy can produce a reason.
func possible(p *policy.Policy, r policy.Reason) bool {
	route := func(f func(*policy.Route) bool) bool {
		return slices.ContainsFunc(p.Routes, func(r policy.Route) bool { return !r.Public && f(&r) })
	}
	kinds, environments := policy.All(len(p.Kinds)), policy.All(len(p.Environments))
	switch r {
	case policy.WrongEnvironment:
		return slices.ContainsFunc(p.Hosts, func(h policy.Host) bool { return h.Environments != environments })
	case policy.TokenMissing, policy.TokenInvalid, policy.TokenExpired:
		return route(func(r *policy.Route) bool { return r.Token })
	case policy.WrongKind:
		return p.UnroutedKinds != kinds || route(func(r *policy.Route) bool { return r.Kinds != kinds })
	case policy.IP:
		return p.Restrictions&policy.RestrictIP != 0
	case policy.Referrer:
		return p.Restrictions&policy.RestrictReferrer != 0
	case policy.Endpoint:
		return p.Restrictions&policy.RestrictEndpoint != 0
	case policy.Tenant:
		return route(func(r *policy.Route) bool { return r.TenantParam != "" })
	case policy.Scope:
		return route(func(r *policy.Route) bool { return r.OnlyUnlimited }) ||
			slices.ContainsFunc(p.Kinds, func(k policy.Kind) bool { return k.Scoped })
	}
	return true
}
