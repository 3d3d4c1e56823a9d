package table

import (
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"github.com/keystile/keystile/core"
)

// Core is the host that is core alone: requests go straight into a
// [core.Verifier], as a host would translate them.
type Core struct {
	v  *core.Verifier
	at time.Time // what the verifier's clock says; zero if it is the system's
}

// NewCore activates the fixture's bundle.
func NewCore(f *Fixture) (*Core, error) {
	b, err := f.Open()
	if err != nil {
		return nil, err
	}
	c := new(Core)
	if c.v, err = core.New(core.Config{Now: c.now}); err != nil {
		return nil, err
	}
	if err := c.v.Activate(b); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Core) now() time.Time {
	if c.at.IsZero() {
		return time.Now()
	}
	return c.at
}

// Name is "core".
func (c *Core) Name() string { return "core" }

// Versions are HTTP/1.1, which alone can change to a WebSocket, and HTTP/2, whose
// authority is a field of its own. For core HTTP/3 differs from that in nothing.
func (c *Core) Versions() []int { return []int{1, 2} }

// DefaultClient is the address that requests come from unless a row names one.
var DefaultClient = netip.MustParseAddr("127.0.0.1")

// Decide gives the decision about one exchange.
func (c *Core) Decide(x *Exchange) core.Decision {
	c.at = x.Now
	return c.v.Verify(request(x))
}

// Explain is [Core.Decide] with the steps that led there.
func (c *Core) Explain(x *Exchange) core.Explanation {
	c.at = x.Now
	return c.v.Explain(request(x))
}

// request is an exchange as core takes it.
func request(x *Exchange) *core.Request {
	path, query, _ := strings.Cut(x.Target, "?")
	client := DefaultClient
	if x.ClientIP != "" {
		client, _ = netip.ParseAddr(x.ClientIP)
	}
	return &core.Request{
		TLS: x.TLS, EarlyData: x.EarlyData, SNI: x.SNI, Peer: DefaultClient, ClientIP: func() netip.Addr { return client },
		Method: x.Method, Authority: x.Authority, Path: path, Query: query, Headers: lines(x),
		HTTP11: x.Version == 1, Body: x.HasBody(),
	}
}

// lines are those of the exchange's header.
func lines(x *Exchange) core.Lines {
	var headers core.Lines
	for _, h := range x.Headers {
		headers = append(headers, core.Header{Name: textproto.CanonicalMIMEHeaderKey(h[0]), Value: h[1]})
	}
	return headers
}

// Do decides one exchange.
func (c *Core) Do(x *Exchange) (*Result, error) {
	d := c.Decide(x)
	result := &Result{Reason: d.Reason.String(), Route: d.Route, RequiredScope: d.RequiredScope}
	if d.Key != nil {
		result.Kind = d.Key.Kind
	}
	if d.Outcome != core.Allow {
		answered(x, &d, result)
		return result, nil
	}
	result.Status, result.Upstream = 200, received(x, &d)
	if d.WebSocket() {
		result.Status = 101
	}
	return result, nil
}

// answered fills in what the client gets from the edge.
func answered(x *Exchange, d *core.Decision, result *Result) {
	if d.Outcome == core.Respond {
		result.Reason = reasonPreflight
	}
	result.Status, result.Body = d.Status, d.Body
	if x.Method == "HEAD" {
		result.Body = nil
	}
	var lines [][2]string
	for _, h := range d.Header {
		lines = append(lines, [2]string{h.Name, h.Value})
	}
	if d.Close && x.Version == 1 {
		lines = append(lines, [2]string{"Connection", "close"})
	}
	result.Header = byName(lines)
}

// received is what the upstream gets.
func received(x *Exchange, d *core.Decision) *Received {
	up := &Received{Method: x.Method, Target: x.Target, Host: x.Authority, Body: x.Body}
	var header, trailers [][2]string
	for _, h := range lines(x) {
		if value, ok := d.Line(h.Name, h.Value); ok {
			header = append(header, [2]string{h.Name, value})
		}
	}
	for _, t := range x.Trailers {
		if d.Trailer(t[0], t[1]) {
			trailers = append(trailers, t)
		}
	}
	up.Header, up.Trailer = byName(header), byName(trailers)
	for _, h := range d.Set {
		up.Header[h.Name] = []string{h.Value}
	}
	return up
}
