package table

import (
	"net/netip"
	"net/textproto"
	"strings"

	"github.com/keystile/keystile/core"
)

// Core is the host that is core alone: requests go straight into a
// [core.Verifier], as a host would translate them.
type Core struct{ v *core.Verifier }

// NewCore activates the fixture's bundle.
func NewCore(f *Fixture) (*Core, error) {
	b, err := f.Open()
	if err != nil {
		return nil, err
	}
	v, err := core.New(core.Config{})
	if err != nil {
		return nil, err
	}
	if err := v.Activate(b); err != nil {
		return nil, err
	}
	return &Core{v}, nil
}

// Name is "core".
func (c *Core) Name() string { return "core" }

// Versions is HTTP/2 alone, whose authority is a field of its own: for core the
// versions differ in nothing else.
func (c *Core) Versions() []int { return []int{2} }

// DefaultClient is the address that requests come from unless a row names one.
var DefaultClient = netip.MustParseAddr("127.0.0.1")

// Do decides one exchange.
func (c *Core) Do(x *Exchange) (*Result, error) {
	var headers core.Lines
	for _, h := range x.Headers {
		headers = append(headers, core.Header{Name: textproto.CanonicalMIMEHeaderKey(h[0]), Value: h[1]})
	}
	path, query, _ := strings.Cut(x.Target, "?")
	client := DefaultClient
	if x.ClientIP != "" {
		client, _ = netip.ParseAddr(x.ClientIP)
	}
	d := c.v.Verify(&core.Request{
		TLS: x.TLS, EarlyData: x.EarlyData, SNI: x.SNI, Peer: DefaultClient, ClientIP: func() netip.Addr { return client },
		Method: x.Method, Authority: x.Authority, Path: path, Query: query, Headers: headers,
	})
	result := &Result{Reason: d.Reason.String(), Route: d.Route, RequiredScope: d.RequiredScope}
	if d.Key != nil {
		result.Kind = d.Key.Kind
	}
	if d.Outcome != core.Allow {
		if d.Outcome == core.Answer {
			result.Reason = reasonPreflight
		}
		result.Status, result.Body = d.Status, d.Body
		if x.Method == "HEAD" {
			result.Body = nil
		}
		result.Header = make(map[string][]string)
		for _, h := range d.Header {
			name := textproto.CanonicalMIMEHeaderKey(h.Name)
			result.Header[name] = append(result.Header[name], h.Value)
		}
		return result, nil
	}
	up := &Received{Method: x.Method, Target: x.Target, Header: make(map[string][]string)}
	for _, h := range headers {
		if value, ok := d.Line(h.Name, h.Value); ok {
			up.Header[h.Name] = append(up.Header[h.Name], value)
		}
	}
	for _, h := range d.Set {
		up.Header[h.Name] = []string{h.Value}
	}
	result.Status, result.Upstream = 200, up
	return result, nil
}
