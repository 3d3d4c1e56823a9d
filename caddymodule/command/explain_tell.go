package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// told is an explanation, as it is printed.
type told struct {
	Bundle    string `json:"bundle"`
	Version   int64  `json:"version"`
	Policy    string `json:"policy"`
	Candidate string `json:"candidate,omitempty"` // policy that is not published yet

	Outcome       string     `json:"outcome"` // deny, allow or respond
	Reason        string     `json:"reason"`
	Step          string     `json:"step"` // that ended the decision
	Steps         []toldStep `json:"steps"`
	Mend          string     `json:"mend,omitempty"`
	KeyID         string     `json:"key_id,omitempty"`
	Route         string     `json:"route,omitempty"`
	RequiredScope string     `json:"required_scope,omitempty"`

	Answer   *toldAnswer   `json:"answer,omitempty"`   // what the client gets
	Upstream *toldUpstream `json:"upstream,omitempty"` // or what goes on
}

type toldStep struct {
	Name     string           `json:"name"`
	Reason   string           `json:"reason"`
	Compared []toldComparison `json:"compared"`
}

type toldComparison struct {
	What  string `json:"what"`
	Holds bool   `json:"holds"`
}

type toldLine struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type toldAnswer struct {
	Status int        `json:"status"`
	Header []toldLine `json:"header"`
	Body   string     `json:"body"`
}

// toldUpstream has the lines that the edge sets, and the names of those of the request
// that go on or do not: their values may be secret.
type toldUpstream struct {
	Set     []toldLine `json:"set"`
	Kept    []string   `json:"kept"`
	Removed []string   `json:"removed"`
}

func newTold(b *bundle.Bundle, a *asked, e *core.Explanation) *told {
	d := &e.Decision
	t := &told{
		Bundle: b.PolicyNote.Name, Version: b.Manifest.Version, Policy: b.Policy.Name, Candidate: a.policy,
		Outcome: map[core.Outcome]string{core.Deny: "deny", core.Allow: "allow", core.Respond: "respond"}[d.Outcome],
		Reason:  d.Reason.String(), Step: e.Steps[len(e.Steps)-1].Name, Mend: mend(e), Route: d.Route, RequiredScope: e.Show(d.RequiredScope),
	}
	if d.Key != nil {
		t.KeyID = d.Key.ID
	}
	for _, s := range e.Steps {
		step := toldStep{Name: s.Name, Reason: s.Reason.String()}
		for _, c := range s.Compared {
			step.Compared = append(step.Compared, toldComparison(c))
		}
		t.Steps = append(t.Steps, step)
	}
	if d.Outcome == core.Allow {
		t.Upstream = toldLines(a, e)
		return t
	}
	t.Answer = &toldAnswer{Status: d.Status, Header: toldHeader(d.Header), Body: string(d.Body)}
	if a.method == "HEAD" {
		t.Answer.Body = ""
	}
	return t
}

func toldHeader(lines []core.Header) []toldLine {
	out := []toldLine{}
	for _, l := range lines {
		out = append(out, toldLine(l))
	}
	return out
}

func toldLines(a *asked, e *core.Explanation) *toldUpstream {
	up := &toldUpstream{Set: toldHeader(e.Decision.Set), Kept: []string{}, Removed: []string{}}
	for _, l := range a.lines {
		name := e.Show(l.Name)
		if _, goes := e.Decision.Line(l.Name, l.Value); goes {
			up.Kept = append(up.Kept, name)
		} else {
			up.Removed = append(up.Removed, name)
		}
	}
	return up
}

// print tells it to people.
func (t *told) print(w io.Writer) {
	by := "bundle " + t.Bundle
	if t.Candidate != "" {
		by += " with the policy " + t.Candidate
	}
	switch t.Outcome {
	case "deny":
		fmt.Fprintf(w, "Denied by %s at the step %s: %s.\n", by, spaces(t.Step), t.Reason)
	case "allow":
		fmt.Fprintf(w, "Allowed by %s.\n", by)
	default:
		fmt.Fprintf(w, "Answered by %s itself.\n", by)
	}
	for _, s := range t.Steps {
		fmt.Fprintf(w, "\n%s\n", spaces(s.Name))
		for _, c := range s.Compared {
			fmt.Fprintf(w, "  %s  %s\n", map[bool]string{true: "ok", false: "NO"}[c.Holds], c.What)
		}
	}
	if t.Mend != "" {
		fmt.Fprintf(w, "\nHow to mend it: %s\n", t.Mend)
	}
	if a := t.Answer; a != nil {
		fmt.Fprintf(w, "\nThe client gets %d:\n", a.Status)
		printLines(w, a.Header)
		if a.Body != "" {
			fmt.Fprintf(w, "\n  %s\n", strings.ReplaceAll(strings.TrimSuffix(a.Body, "\n"), "\n", "\n  "))
		}
		return
	}
	fmt.Fprint(w, "\nThe upstream gets the request, with\n")
	printLines(w, t.Upstream.Set)
	fmt.Fprintf(w, "  as it was sent: %s\n  taken away: %s\n", listed(t.Upstream.Kept), listed(t.Upstream.Removed))
}

func printLines(w io.Writer, lines []toldLine) {
	for _, l := range lines {
		fmt.Fprintf(w, "  %s: %s\n", l.Name, l.Value)
	}
}

func listed(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

func spaces(s string) string { return strings.ReplaceAll(s, "_", " ") }

// mend says how to mend a denial, in one sentence.
func mend(e *core.Explanation) string {
	m := mends[e.Decision.Reason]
	if scope := e.Decision.RequiredScope; scope != "" {
		m = strings.ReplaceAll(m, "--scope`", "--scope "+e.Show(scope)+"`")
	}
	return m
}

// mends say how to mend a denial, for each reason.
var mends = [policy.NumReasons]string{
	policy.Plaintext:   "call https:// (curl takes a URL without a scheme as http://), and if a key was sent in clear, roll it with `caddy keystile keys roll`.",
	policy.EarlyData:   "send the request again once the TLS handshake is complete; an edge behind a proxy is told so by Early-Data.",
	policy.Malformed:   "send the part that is named above as the step wants it: servers read other forms differently, so that they are refused and not repaired.",
	policy.Misdirected: "call a host that the policy serves, by the same server name; or add the host to the policy of the bundle and give `caddy keystile bundle build`.",

	policy.InURL:     "send the key in the header that the policy names and roll it with `caddy keystile keys roll`: URLs get into logs.",
	policy.InCookie:  "send the key in the header that the policy names, and not in a cookie.",
	policy.Multiple:  "send one line with one key: leave out the other lines of the policy's sources, also those of other schemes.",
	policy.Missing:   "send the key in a header that the policy names.",
	policy.BadFormat: "copy the key again as a whole, and send it as the policy's source says: it is cut, mistyped, or no key of this policy.",

	policy.Unknown:          "use a key of this bundle (`caddy keystile keys list`), or make one with `caddy keystile keys create`.",
	policy.Revoked:          "make a new key with `caddy keystile keys create`: a revoked one never works again.",
	policy.Expired:          "make a new key with `caddy keystile keys create`, with a later end (--expires) or with none.",
	policy.NotYetValid:      "wait for the time that is named above, or make another key with `caddy keystile keys create`.",
	policy.WrongEnvironment: "call a host of the key's environment, or use a key of the host's (`caddy keystile keys create --environment`).",

	policy.TokenMissing: "send the customer token in the header that is named above, beside the API key.",
	policy.TokenInvalid: "get a token from the issuer for this key's tenant, and see that `caddy keystile bundle build --jwks` has the issuer's keys.",
	policy.TokenExpired: "get a new customer token from its issuer.",

	policy.WrongKind: "use a key of a kind that may call this (`caddy keystile keys create --kind`), or add the kind to the route in the policy.",
	policy.NoRoute:   "call a path and a method of the policy, in its own spelling of case and last slash; or add a route to the policy and give `caddy keystile bundle build`.",
	policy.IP:        "call from an address that the key is limited to (here: --client-ip says which), or make a key with another `caddy keystile keys create --ip`.",
	policy.Referrer:  "call from a page of an origin that the key is limited to, or make a key with another `caddy keystile keys create --referrer`.",
	policy.Endpoint:  "call an endpoint that the key is limited to, or make a key with another `caddy keystile keys create --endpoint`.",
	policy.Tenant:    "put the key's own tenant into the path, or make a key for the tenant that is there with `caddy keystile keys create --tenant`.",
	policy.Scope:     "make a key that has the scope with `caddy keystile keys create --scope`, or change what the policy's route demands.",

	policy.RateLimited: "wait, and send the request again.",

	policy.NoBundle:      "give the edge a bundle: `caddy keystile bundle build` makes it.",
	policy.BundleExpired: "give `caddy keystile bundle renew`, and keep `caddy keystile bundle renew --every 5m` running.",
	policy.StaleBundle:   "set the clock right here and at the publisher; with --at, take a time after the bundle was signed, since another bundle was in force before.",
	policy.NodeMissing:   "make the bundle whole again with `caddy keystile bundle build`, and see with `caddy keystile bundle verify` that it is.",
	policy.Internal:      "see what the step says went wrong: `caddy keystile bundle verify` finds a bundle that is damaged.",
}
