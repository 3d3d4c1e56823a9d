package table

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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
	Method, Target, Host string
	Header               map[string][]string // canonical names
	Body                 string
	Trailer              map[string][]string // canonical names
}

// RowResult is a row with what came of it.
type RowResult struct {
	Exchange *Exchange
	Result   *Result
	Err      error // nil if it is as the row says
}

// Name names the outcome for people.
func (o *RowResult) Name() string {
	return fmt.Sprintf("%s [HTTP/%d]", o.Exchange.Row.Name, o.Exchange.Version)
}

// Answer is what a client or the upstream got, for comparing one host's with
// another's: what a policy says, without what every host adds of its own.
func (o *RowResult) Answer() string {
	r := o.Result
	if r.Upstream != nil {
		identity := make(map[string][]string)
		for name, lines := range r.Upstream.Header {
			if strings.HasPrefix(strings.ToLower(name), "keystile") {
				identity[name] = lines
			}
		}
		return fmt.Sprintf("goes on as %s %s to %s %q, body %q, trailer %q (%d)",
			r.Upstream.Method, r.Upstream.Target, r.Upstream.Host, identity, r.Upstream.Body, r.Upstream.Trailer, r.Status)
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
func Run(t *Table, f *Fixture, h Host) ([]RowResult, error) {
	var out []RowResult
	for i := range t.Rows {
		r := &t.Rows[i]
		if len(r.Only) > 0 && !slices.Contains(r.Only, h.Name()) {
			continue
		}
		for _, version := range h.Versions() {
			if len(r.HTTP) > 0 && !slices.Contains(r.HTTP, version) {
				continue
			}
			x, err := f.exchange(t, r, h.Name(), version)
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
			out = append(out, RowResult{x, result, compare(x, result)})
		}
	}
	if len(out) == 0 {
		return nil, ErrNothingRan
	}
	return out, nil
}
