package core

import (
	"fmt"
	"strings"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// Field is a name and a text of a log line.
type Field struct{ Name, Value string }

// Fields are what the log line of a denial says of r and why it was denied: what came,
// and what would have been allowed in its place. A host adds the status and what it
// alone knows. No field holds an API key (R74); what came is visible ASCII of bounded
// length (R75).
func (d *Decision) Fields(r *Request) []Field {
	fields := append(make([]Field, 0, 16), Field{"request_id", d.RequestID}, Field{"reason", d.Reason.String()})
	add := func(name, value string) {
		if value != "" {
			fields = append(fields, Field{name, value})
		}
	}
	add("method", d.Show(r.Method))
	add("host", d.Show(r.Authority))
	add("path", d.Show(r.Path))
	if d.Reason == policy.Misdirected {
		add("server_name", d.Show(r.SNI))
	}
	add("policy", d.Policy())
	add("route", d.Route)
	if d.Key != nil {
		add("key_id", d.Key.ID)
	}
	add("required_scope", d.RequiredScope)
	add("allowed", d.allowed())
	if d.Err != nil {
		add("error", d.Err.Error())
	}
	return fields
}

// LeftOut stands in a log for what may hold an API key.
const LeftOut = "(left out: it may hold an API key)"

// maxShown is how many bytes of what a client sent are logged.
const maxShown = 512

// Show makes what a client has sent fit for a log: what is not visible ASCII is
// percent-encoded, and what may hold an API key is left out. Where no policy says what
// one looks like, only a method that everybody knows is shown.
func (d *Decision) Show(sent string) string {
	_, method := shape.ParseMethod(sent)
	switch {
	case sent == "" || method:
		return sent
	case d.policy == nil || d.policy.Grammar().MayHold(sent):
		return LeftOut
	}
	var b strings.Builder
	for i := range len(sent) {
		if b.Len() >= maxShown {
			b.WriteString("…")
			break
		}
		if c := sent[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// allowed is what the policy, or the key, would have allowed in place of what came; ""
// where the reason says it all.
func (d *Decision) allowed() string {
	p := d.policy
	if p == nil {
		return ""
	}
	switch d.Reason {
	case policy.Misdirected:
		return namesOf(len(p.Hosts), func(i int) string { return p.Hosts[i].Name })
	case policy.Missing, policy.Multiple, policy.BadFormat, policy.InURL, policy.InCookie:
		return namesOf(len(p.Sources), func(i int) string { return lineOf(&p.Sources[i]) })
	case policy.WrongEnvironment:
		return namesOf(len(p.Environments), func(i int) string { return named(d.environments.Has(i), p.Environments[i]) })
	case policy.WrongKind:
		kinds := p.UnroutedKinds
		if d.route != nil {
			kinds = d.route.Kinds
		}
		return namesOf(len(p.Kinds), func(i int) string { return named(kinds.Has(i), p.Kinds[i].Name) })
	case policy.IP:
		return namesOf(len(d.entry.record.Prefixes), func(i int) string { return d.entry.record.Prefixes[i].String() })
	case policy.Referrer:
		return namesOf(len(d.entry.record.Referrers), func(i int) string { return d.entry.record.Referrers[i] })
	case policy.Endpoint:
		return namesOf(len(d.entry.record.Endpoints), func(i int) string { return d.entry.record.Endpoints[i] })
	case policy.Tenant:
		return d.Key.Tenant
	case policy.TokenMissing:
		return lineOf(&p.CustomerToken.Source)
	}
	return ""
}

// lineOf is how a line of a source begins.
func lineOf(s *credential.Source) string {
	if s.Scheme == "" {
		return s.Name
	}
	return s.Name + ": " + s.Scheme
}

func named(is bool, name string) string {
	if is {
		return name
	}
	return ""
}

// maxNamed is how many names of a list are logged.
const maxNamed = 16

// namesOf joins those of n names that are not "".
func namesOf(n int, name func(int) string) string {
	var names []string
	for i := range n {
		if s := name(i); s != "" {
			if len(names) == maxNamed {
				names = append(names, "…")
				break
			}
			names = append(names, s)
		}
	}
	return strings.Join(names, ", ")
}
