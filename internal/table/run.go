package table

import (
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/policy"
)

// Host decides requests: core itself, or a server that has it inside.
type Host interface {
	// Name is the host's name in a row's `only`.
	Name() string
	// Versions are the HTTP versions that it speaks.
	Versions() []int
	// Do sends one exchange.
	Do(*Exchange) (*Result, error)
}

// Result is what a client and the upstream saw of one exchange.
type Result struct {
	// Refused says that the host's parser closed the connection without an
	// answer.
	Refused bool
	Status  int
	Header  map[string][]string // canonical names
	Body    []byte
	// Reason is the one that the host logged, "ok" if the request went on,
	// "preflight" if the edge answered it.
	Reason string
	// Upstream is what the upstream received, or nil.
	Upstream *Received
	// Decision says more, on hosts that can tell.
	Route, Kind, RequiredScope string
}

// Received is a request as the upstream got it.
type Received struct {
	Method, Target string
	Header         map[string][]string // canonical names
}

// Outcome is a row with what came of it.
type Outcome struct {
	Exchange *Exchange
	Result   *Result
	Err      error // nil if it is as the row says
}

// Name names the outcome for people.
func (o *Outcome) Name() string {
	return fmt.Sprintf("%s [HTTP/%d]", o.Exchange.Row.Name, o.Exchange.Version)
}

// Answer is what a client or the upstream got, for comparing one host's with
// another's: what a policy says, without what every host adds of its own.
func (o *Outcome) Answer() string {
	r := o.Result
	if r.Upstream != nil {
		identity := make(map[string][]string)
		for name, lines := range r.Upstream.Header {
			if strings.HasPrefix(strings.ToLower(name), "keystile") {
				identity[name] = lines
			}
		}
		return fmt.Sprintf("goes on as %s %s %q", r.Upstream.Method, r.Upstream.Target, identity)
	}
	var headers []string
	for _, name := range []string{"Content-Type", "Www-Authenticate", "Cache-Control", "Retry-After", "Access-Control-Allow-Origin",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Grpc-Status", "Grpc-Message"} {
		if lines := r.Header[name]; lines != nil {
			headers = append(headers, fmt.Sprintf("%s=%q", name, lines))
		}
	}
	return fmt.Sprintf("%s %d %s %s", r.Reason, r.Status, strings.Join(headers, " "), r.Body)
}

// ErrNothingRan is returned where no row of a table can be shown on a host.
var ErrNothingRan = errors.New("no row ran: a table without rows for this host shows nothing")

// Run sends every row of t through h by every version that both can.
func Run(t *Table, f *Fixture, h Host) ([]Outcome, error) {
	var out []Outcome
	for i := range t.Rows {
		r := &t.Rows[i]
		if len(r.Only) > 0 && !slices.Contains(r.Only, h.Name()) {
			continue
		}
		for _, version := range h.Versions() {
			if len(r.HTTP) > 0 && !slices.Contains(r.HTTP, version) {
				continue
			}
			x, err := f.exchange(t, r, version)
			if err != nil {
				return nil, fmt.Errorf("row %q: %w", r.Name, err)
			}
			if !x.TLS && version != slices.Min(h.Versions()) {
				continue // servers speak the later versions over TLS alone
			}
			result, err := h.Do(x)
			if err != nil {
				return nil, fmt.Errorf("row %q by HTTP/%d: %w", r.Name, version, err)
			}
			out = append(out, Outcome{x, result, compare(x, result)})
		}
	}
	if len(out) == 0 {
		return nil, ErrNothingRan
	}
	return out, nil
}

// compare says how a result differs from its row.
func compare(x *Exchange, got *Result) error {
	if x.Row.Parser {
		if got.Upstream != nil || !got.Refused && (got.Status < 400 || got.Status > 499) {
			return fmt.Errorf("status %d, upstream reached: %v; a 4xx or a closed stream is needed", got.Status, got.Upstream != nil)
		}
		return nil
	}
	if got.Refused {
		return errors.New("the connection was closed without an answer")
	}
	if got.Reason != x.Row.Reason {
		return fmt.Errorf("reason %q, not %q (status %d, %s)", got.Reason, x.Row.Reason, got.Status, got.Body)
	}
	if x.Row.Reason == reasonOK {
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
	if x.Row.Reason != reasonPreflight {
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
	if up.Method != x.Method || up.Target != x.Target {
		return fmt.Errorf("the upstream got %s %s, not %s %s", up.Method, up.Target, x.Method, x.Target) // R14
	}
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
	for name, lines := range up.Header {
		for _, line := range lines {
			if slices.ContainsFunc(x.keys, func(key string) bool { return strings.Contains(line, key) }) {
				return fmt.Errorf("the upstream got an API key, in %s", name) // R32
			}
		}
	}
	for _, line := range x.upstreamLines {
		name, value, _ := strings.Cut(line, ": ")
		if lines := up.Header[textproto.CanonicalMIMEHeaderKey(name)]; len(lines) != 1 || lines[0] != value {
			return fmt.Errorf("the upstream got %s %d times, or another value than the row's", name, len(lines))
		}
	}
	for _, name := range x.Row.NoUpstream {
		if lines := up.Header[textproto.CanonicalMIMEHeaderKey(name)]; lines != nil {
			return fmt.Errorf("the upstream got %s", name)
		}
	}
	return nil
}

// Mutate says which outcomes would also pass with another status, reason or
// body byte in their row: their comparison shows nothing.
func Mutate(outcomes []Outcome) (blind []string) {
	for _, o := range outcomes {
		if o.Exchange.Row.Parser {
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
	reason := func(to string) *Exchange {
		y, row := *x, *x.Row
		row.Reason = to
		y.Row = &row
		return &y
	}
	out := map[string]*Exchange{}
	for _, r := range []string{reasonOK, policy.Unknown.String(), policy.Scope.String(), policy.Malformed.String()} {
		if r != x.Row.Reason {
			out["reason "+r] = reason(r)
		}
	}
	if x.Row.Reason == reasonOK {
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
