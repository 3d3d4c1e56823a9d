// Package table runs conformance tables: requests beside the exact answers that
// a policy gives them.
//
// [Load] reads a table, [Table.Issue] makes the keys that it names anew and
// builds a signed bundle of them, and [Run] sends every row through a [Host] and
// compares. policies/README.md describes the format.
package table

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/internal/document"
)

// Table is a conformance table as it is written.
type Table struct {
	Keys    map[string]KeySpec   `yaml:"keys"`
	Tokens  map[string]TokenSpec `yaml:"tokens"`
	Answers map[string]Answer    `yaml:"answers"`
	Rows    []Row                `yaml:"rows"`
}

// KeySpec describes a key by its record. Times are relative to the run, as in
// "-1h" and "90d", or to the midnight (UTC) with which its day began, as in
// "midnight" and "midnight +1d".
type KeySpec struct {
	Kind        string   `yaml:"kind"`
	Environment string   `yaml:"environment"`
	Tenant      string   `yaml:"tenant"`
	Scopes      []string `yaml:"scopes"`
	Status      string   `yaml:"status"`
	NotBefore   string   `yaml:"not_before"`
	Expires     string   `yaml:"expires"`
	IPs         []string `yaml:"ips"`
	Referrers   []string `yaml:"referrers"`
	Endpoints   []string `yaml:"endpoints"`
	// Absent keys are made and not put into the bundle.
	Absent bool `yaml:"absent"`
}

// TokenSpec describes a customer token by its claims.
type TokenSpec struct {
	// Claims are those of the token. exp, nbf and iat are relative times.
	Claims map[string]any `yaml:"claims"`
	// Header adds to the token's header, or replaces what is there.
	Header map[string]any `yaml:"header"`
	// Signer is "" for the run's key set, "stranger" for a key of the same kind
	// that is not in it, "public" for HS256 with the public key as its secret,
	// or "none".
	Signer string `yaml:"signer"`
	// Damage changes the finished token: "signature" flips one bit of it,
	// "padding" adds base64 padding, "newline" a line end, "bits" sets an
	// unused trailing bit, "cut" removes the signature, "large" adds claims up
	// to more than 8 KiB.
	Damage string `yaml:"damage"`
}

// Answer is what a client must get.
type Answer struct {
	Status    int               `yaml:"status"`
	Headers   map[string]string `yaml:"headers"`
	NoHeaders []string          `yaml:"no_headers"`
	Body      *string           `yaml:"body"`
}

// Row is one request with what must become of it.
type Row struct {
	Name string `yaml:"name"`
	// With repeats the row for each value, which stands for {it}.
	With []string `yaml:"with"`

	// Request is "METHOD URL"; http:// sends it without TLS.
	Request string `yaml:"request"`
	// Headers are lines "Name: value", sent in this order.
	Headers []string `yaml:"headers"`
	// Body is sent with its length, or in chunks (HTTP/1.1) and without it; Trailers
	// are lines behind it, and bring chunks.
	Body     string   `yaml:"body"`
	Chunked  bool     `yaml:"chunked"`
	Trailers []string `yaml:"trailers"`
	// Target replaces the URL's path and query on the wire, Host its authority,
	// and SNI the server name of the handshake ("-" for none).
	Target    string `yaml:"target"`
	Host      string `yaml:"host"`
	SNI       string `yaml:"sni"`
	ClientIP  string `yaml:"client_ip"`
	EarlyData bool   `yaml:"early_data"`
	// Now is what the verifier's clock says, in the form of a key's times.
	Now string `yaml:"now"`
	// HTTP lists the versions to send it by; all of 1, 2 and 3 if empty.
	HTTP []int `yaml:"http"`
	// Only names the hosts that can show the row; all if empty.
	Only []string `yaml:"only"`

	Want `yaml:",inline"`
	// On has what must become of it on a host ("envoy"), or by one version of HTTP
	// there ("caddy/2"), in place of all that the row itself says of that.
	On map[string]Want `yaml:"on"`
}

// Want is what must become of a row.
type Want struct {
	// Parser marks what a host's HTTP parser may refuse by itself.
	Parser bool `yaml:"parser"`
	// Reason is "ok", "preflight" or a reason of a denial.
	Reason string `yaml:"reason"`
	// Answer names one under answers; the fields of Expect add to it.
	Answer string `yaml:"answer"`
	Expect Answer `yaml:"expect"`
	// Upstream are all identity headers that the upstream must get, and
	// UpstreamLines further lines; NoUpstream names headers that it must not get.
	Upstream      map[string]string `yaml:"upstream"`
	UpstreamLines []string          `yaml:"upstream_lines"`
	NoUpstream    []string          `yaml:"no_upstream"`
	// UpstreamHost and UpstreamBody are given where they are not what was sent.
	// UpstreamTrailers are all lines of the trailer that the upstream must get.
	UpstreamHost     string   `yaml:"upstream_host"`
	UpstreamBody     *string  `yaml:"upstream_body"`
	UpstreamTrailers []string `yaml:"upstream_trailers"`
	// Upgraded says that the upstream's 101 must reach the client, and that the
	// connection then carries what both say.
	Upgraded bool `yaml:"upgraded"`
}

// Reasons of rows that are not denied.
const (
	reasonOK        = "ok"
	reasonPreflight = "preflight"
)

// Load reads a table strictly and checks that it fits together.
func Load(file string, source []byte) (*Table, error) {
	t := new(Table)
	if err := document.Decode(file, source, t); err != nil {
		return nil, err
	}
	var rows []Row
	for i, r := range t.Rows {
		if r.Name == "" {
			return nil, fmt.Errorf("%s: row %d has no name", file, i+1)
		}
		if len(r.With) == 0 {
			rows = append(rows, r)
			continue
		}
		for _, it := range r.With {
			rows = append(rows, r.with(it))
		}
	}
	t.Rows = rows
	for i := range t.Rows {
		if err := t.check(&t.Rows[i]); err != nil {
			return nil, fmt.Errorf("%s: row %q: %w", file, t.Rows[i].Name, err)
		}
	}
	if len(t.Rows) == 0 {
		return nil, fmt.Errorf("%s: the table has no rows", file)
	}
	return t, nil
}

// with is the row for one value of With.
func (r Row) with(it string) Row {
	fill := func(s string) string { return strings.ReplaceAll(s, "{it}", it) }
	lines := func(list []string) []string {
		filled := slices.Clone(list)
		for i := range filled {
			filled[i] = fill(filled[i])
		}
		return filled
	}
	r.With = nil
	if name := fill(r.Name); name != r.Name {
		r.Name = name
	} else {
		r.Name += " (" + it + ")"
	}
	r.Request, r.Target, r.Host, r.SNI, r.ClientIP = fill(r.Request), fill(r.Target), fill(r.Host), fill(r.SNI), fill(r.ClientIP)
	r.Body = fill(r.Body)
	r.Headers, r.Trailers = lines(r.Headers), lines(r.Trailers)
	r.Want = r.Want.with(fill, lines)
	on := make(map[string]Want)
	for host, w := range r.On {
		on[host] = w.with(fill, lines)
	}
	r.On = on
	return r
}

func (w Want) with(fill func(string) string, lines func([]string) []string) Want {
	up := make(map[string]string)
	for k, v := range w.Upstream {
		up[k] = fill(v)
	}
	if w.Upstream != nil {
		w.Upstream = up
	}
	w.UpstreamHost = fill(w.UpstreamHost)
	w.UpstreamLines, w.UpstreamTrailers, w.NoUpstream = lines(w.UpstreamLines), lines(w.UpstreamTrailers), lines(w.NoUpstream)
	return w
}
