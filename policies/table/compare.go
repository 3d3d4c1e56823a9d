package table

import (
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/policy"
)

// compare says how a result differs from its row.
func compare(x *Exchange, got *Result) error {
	if x.Want.Parser {
		if got.Upstream != nil || !got.Refused && (got.Status < 400 || got.Status > 499) {
			return fmt.Errorf("status %d, upstream reached: %v; a 4xx or a closed stream is needed", got.Status, got.Upstream != nil)
		}
		return nil
	}
	if got.Refused {
		return errors.New("the connection was closed without an answer")
	}
	if got.Reason != x.Want.Reason {
		return fmt.Errorf("reason %q, not %q (status %d, %s)", got.Reason, x.Want.Reason, got.Status, got.Body)
	}
	if x.Want.Reason == reasonOK {
		return compareUpstream(x, got)
	}
	if got.Upstream != nil {
		return errors.New("the upstream was reached")
	}
	return compareAnswer(x, got)
}

func compareAnswer(x *Exchange, got *Result) error {
	want := x.expect
	if got.Status != want.Status {
		return fmt.Errorf("status %d, not %d: %s", got.Status, want.Status, got.Body)
	}
	for name, value := range want.Headers {
		if lines := got.Header[textproto.CanonicalMIMEHeaderKey(name)]; len(lines) != 1 || lines[0] != value {
			return fmt.Errorf("header %s is %q, not %q", name, lines, value)
		}
	}
	absent := want.NoHeaders
	if x.Want.Reason != reasonPreflight {
		absent = append(slices.Clone(absent), "Location")
		if lines := got.Header["Cache-Control"]; len(lines) != 1 || lines[0] != "no-store" {
			return fmt.Errorf("header Cache-Control is %q, not no-store, on a denial", lines)
		}
		if lines := got.Header["Request-Id"]; len(lines) != 1 || len(lines[0]) < 20 {
			return fmt.Errorf("header Request-Id is %q on a denial", lines)
		}
	}
	for _, name := range absent {
		if lines := got.Header[textproto.CanonicalMIMEHeaderKey(name)]; lines != nil {
			return fmt.Errorf("header %s is there: %q", name, lines)
		}
	}
	if want.Body == nil {
		return nil
	}
	body := *want.Body
	if x.Method == "HEAD" {
		body = ""
	}
	if string(got.Body) != body {
		return fmt.Errorf("body\n  %s\nnot\n  %s", got.Body, body)
	}
	return nil
}

func compareUpstream(x *Exchange, got *Result) error {
	up := got.Upstream
	if up == nil {
		return fmt.Errorf("the upstream was not reached (status %d, %s)", got.Status, got.Body)
	}
	switch status := map[bool]int{false: 200, true: 101}[x.Want.Upgraded]; {
	case got.Status != status:
		return fmt.Errorf("the upstream's answer came as %d, not %d", got.Status, status)
	case up.Method != x.Method || up.Target != x.Target: // R14
		return fmt.Errorf("the upstream got %s %s, not %s %s", up.Method, up.Target, x.Method, x.Target)
	case up.Host != x.upstreamHost:
		return fmt.Errorf("the upstream got the Host %q, not %q", up.Host, x.upstreamHost)
	case up.Body != x.upstreamBody:
		return fmt.Errorf("the upstream got the body %q, not %q", up.Body, x.upstreamBody)
	case !maps.EqualFunc(up.Trailer, x.upstreamTrailers, slices.Equal):
		return fmt.Errorf("the upstream got the trailer %q, not %q", up.Trailer, x.upstreamTrailers)
	}
	if err := compareIdentity(x, up); err != nil {
		return err
	}
	if err := noKey(x, up); err != nil {
		return err
	}
	for _, line := range x.upstreamLines {
		name, value, _ := strings.Cut(line, ": ")
		if lines := up.Header[textproto.CanonicalMIMEHeaderKey(name)]; len(lines) != 1 || lines[0] != value {
			return fmt.Errorf("the upstream got %s %d times, or another value than the row's", name, len(lines))
		}
	}
	for _, name := range x.Want.NoUpstream {
		if lines := up.Header[textproto.CanonicalMIMEHeaderKey(name)]; lines != nil {
			return fmt.Errorf("the upstream got %s", name)
		}
	}
	return nil
}

func compareIdentity(x *Exchange, up *Received) error {
	for name, value := range x.upstream {
		if lines := up.Header[textproto.CanonicalMIMEHeaderKey(name)]; len(lines) != 1 || lines[0] != value {
			return fmt.Errorf("the upstream got %s %q, not %q", name, lines, value)
		}
	}
	for name, lines := range up.Header {
		if _, listed := x.upstream[name]; !listed && strings.HasPrefix(strings.ToLower(name), "keystile") {
			return fmt.Errorf("the upstream got %s %q, which the row does not list", name, lines)
		}
	}
	return nil
}

// noKey looks for API keys in all that the upstream got but the body, and what the
// row says that it gets.
func noKey(x *Exchange, up *Received) error {
	for name, lines := range up.Header {
		for _, line := range lines {
			holds := slices.ContainsFunc(x.keys, func(key string) bool { return strings.Contains(line, key) })
			said := slices.ContainsFunc(x.upstreamLines, func(l string) bool {
				n, value, _ := strings.Cut(l, ": ")
				return textproto.CanonicalMIMEHeaderKey(n) == name && value == line
			})
			if holds && !said {
				return fmt.Errorf("the upstream got an API key, in %s", name) // R32
			}
		}
	}
	return nil
}

// byName has the values of lines under canonical names.
func byName(lines [][2]string) map[string][]string {
	out := make(map[string][]string)
	for _, l := range lines {
		name := textproto.CanonicalMIMEHeaderKey(l[0])
		out[name] = append(out[name], l[1])
	}
	return out
}

// Mutate says which outcomes would also pass with another status, reason or
// body byte in their row: their comparison shows nothing.
func Mutate(outcomes []RowResult) (blind []string) {
	for _, o := range outcomes {
		if o.Exchange.Want.Parser {
			continue
		}
		for what, x := range mutants(o.Exchange) {
			if compare(x, o.Result) == nil {
				blind = append(blind, fmt.Sprintf("%s: another %s would pass", o.Name(), what))
			}
		}
	}
	return blind
}

func mutants(x *Exchange) map[string]*Exchange {
	out := map[string]*Exchange{}
	for _, r := range []string{reasonOK, policy.Unknown.String(), policy.Scope.String(), policy.Malformed.String()} {
		if r != x.Want.Reason {
			out["reason "+r] = wanting(x, func(w *Want) { w.Reason = r })
		}
	}
	if x.Want.Reason == reasonOK {
		mutateUpstream(x, out)
		return out
	}
	status := *x
	status.expect.Status++
	out["status"] = &status
	if x.expect.Body != nil && x.Method != "HEAD" {
		body := *x
		changed := *x.expect.Body + "x"
		if n := len(changed) - 1; n > 0 {
			changed = changed[:n/2] + "\x01" + changed[n/2+1:n]
		}
		body.expect.Body = &changed
		out["body byte"] = &body
	} else if x.expect.Body == nil && x.Method != "HEAD" {
		out["body, which the row does not name,"] = x
	}
	return out
}

// mutateUpstream adds exchanges whose upstream must get something else.
func mutateUpstream(x *Exchange, out map[string]*Exchange) {
	host, body, trailers := *x, *x, *x
	host.upstreamHost += "x"
	body.upstreamBody += "x"
	trailers.upstreamTrailers = map[string][]string{"X-Mutant": {"x"}}
	out["Host upstream"], out["body upstream"], out["trailer upstream"] = &host, &body, &trailers
	out["answer of the upstream"] = wanting(x, func(w *Want) { w.Upgraded = !w.Upgraded })
}

// wanting is x with another expectation.
func wanting(x *Exchange, change func(*Want)) *Exchange {
	y, w := *x, *x.Want
	change(&w)
	y.Want = &w
	return &y
}
