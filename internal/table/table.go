// Package table runs conformance tables: requests beside the exact answers that
// a policy gives them.
//
// [Load] reads a table, [Table.Issue] makes the keys that it names anew and
// builds a signed bundle of them, and [Run] sends every row through a [Host] and
// compares. policies/README.md describes the format.
package table

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
)

// Table is a conformance table as it is written.
type Table struct {
	Keys    map[string]KeySpec   `yaml:"keys"`
	Tokens  map[string]TokenSpec `yaml:"tokens"`
	Answers map[string]Answer    `yaml:"answers"`
	Rows    []Row                `yaml:"rows"`
}

// KeySpec describes a key by its record. Times are relative to the run, as in
// "-1h" and "90d".
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

// Row is one request with its answer.
type Row struct {
	Name string `yaml:"name"`
	// With repeats the row for each value, which stands for {it}.
	With []string `yaml:"with"`

	// Request is "METHOD URL"; http:// sends it without TLS.
	Request string `yaml:"request"`
	// Headers are lines "Name: value", sent in this order.
	Headers []string `yaml:"headers"`
	// Target replaces the URL's path and query on the wire, Host its authority,
	// and SNI the server name of the handshake ("-" for none).
	Target    string `yaml:"target"`
	Host      string `yaml:"host"`
	SNI       string `yaml:"sni"`
	ClientIP  string `yaml:"client_ip"`
	EarlyData bool   `yaml:"early_data"`
	// HTTP lists the versions to send it by; all of 1, 2 and 3 if empty.
	HTTP []int `yaml:"http"`
	// Parser marks what a host's HTTP parser may refuse by itself.
	Parser bool `yaml:"parser"`
	// Only names the hosts that can show the row; all if empty.
	Only []string `yaml:"only"`

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
}

// Reasons of rows that are not denied.
const (
	reasonOK        = "ok"
	reasonPreflight = "preflight"
)

// Load reads a table strictly and checks that it fits together.
func Load(file string, source []byte) (*Table, error) {
	t := new(Table)
	if err := compile.DecodeYAML(file, source, t); err != nil {
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
	r.With = nil
	if name := fill(r.Name); name != r.Name {
		r.Name = name
	} else {
		r.Name += " (" + it + ")"
	}
	r.Request, r.Target, r.Host, r.SNI, r.ClientIP = fill(r.Request), fill(r.Target), fill(r.Host), fill(r.SNI), fill(r.ClientIP)
	r.Headers = slices.Clone(r.Headers)
	for i := range r.Headers {
		r.Headers[i] = fill(r.Headers[i])
	}
	up := make(map[string]string)
	for k, v := range r.Upstream {
		up[k] = fill(v)
	}
	if r.Upstream != nil {
		r.Upstream = up
	}
	r.UpstreamLines = slices.Clone(r.UpstreamLines)
	for i := range r.UpstreamLines {
		r.UpstreamLines[i] = fill(r.UpstreamLines[i])
	}
	return r
}

func (t *Table) check(r *Row) error {
	method, raw, ok := strings.Cut(r.Request, " ")
	u, err := url.Parse(raw)
	if !ok || method == "" || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("request %q: write METHOD https://host/path; what no URL can say goes into target, host and sni", r.Request)
	}
	for _, h := range r.Headers {
		if name, _, ok := strings.Cut(h, ":"); !ok || name == "" {
			return fmt.Errorf("header %q: write it as Name: value", h)
		}
	}
	for _, v := range r.HTTP {
		if v < 1 || v > 3 {
			return fmt.Errorf("http %d: use 1, 2 or 3", v)
		}
	}
	if r.Answer != "" {
		if _, ok := t.Answers[r.Answer]; !ok {
			return fmt.Errorf("answer %q is not under answers", r.Answer)
		}
	}
	switch _, known := policy.ParseReason(r.Reason); {
	case r.Parser && r.Reason == "":
		return nil
	case r.Reason == reasonOK:
		if r.Answer != "" || r.Expect.Status != 0 {
			return fmt.Errorf("an allowed row has no answer of the edge: it says what the upstream gets")
		}
		return nil
	case !known && r.Reason != reasonPreflight:
		return fmt.Errorf("reason %q is not one of the list", r.Reason)
	}
	if t.expected(r).Status == 0 {
		return fmt.Errorf("a denial needs a status, in answer or expect")
	}
	return nil
}

// expected is the row's whole answer.
func (t *Table) expected(r *Row) Answer {
	a := t.Answers[r.Answer]
	headers := make(map[string]string)
	for _, from := range []map[string]string{a.Headers, r.Expect.Headers} {
		for k, v := range from {
			headers[k] = v
		}
	}
	a.Headers = headers
	a.NoHeaders = slices.Concat(a.NoHeaders, r.Expect.NoHeaders)
	if r.Expect.Status != 0 {
		a.Status = r.Expect.Status
	}
	if r.Expect.Body != nil {
		a.Body = r.Expect.Body
	}
	return a
}

var placeholder = regexp.MustCompile(`\{([a-z][a-z0-9_-]*)(?:\.([a-z]+))?\}`)

// fill puts keys and tokens into the text of a row.
func (f *Fixture) fill(s string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(s, func(m string) string {
		part := placeholder.FindStringSubmatch(m)
		v, err := f.value(part[1], part[2])
		if err != nil {
			failed = err
		}
		return v
	})
	return out, failed
}

func (f *Fixture) value(name, form string) (string, error) {
	if raw, ok := f.tokens[name]; ok && form == "" {
		return raw, nil
	}
	k, ok := f.keys[name]
	if !ok {
		return "", fmt.Errorf("{%s} is neither a key nor a token of the table", name)
	}
	key := k.secret.Reveal()
	switch form {
	case "":
		return key, nil
	case "id":
		return k.id, nil
	case "typo": // the last character is another one: the checksum is wrong
		last := byte('0')
		if key[len(key)-1] == last {
			last = '1'
		}
		return key[:len(key)-1] + string(last), nil
	case "cut":
		return key[:len(key)-1], nil
	case "percent":
		return fmt.Sprintf("%%%02X%s", key[0], key[1:]), nil
	case "upper":
		return strings.ToUpper(key), nil
	}
	return "", fmt.Errorf("{%s.%s}: use id, typo, cut, percent or upper", name, form)
}

// Exchange is one row made ready to send by one version of HTTP.
type Exchange struct {
	Row     *Row
	Version int // 1, 2 or 3

	TLS       bool
	SNI       string
	Method    string
	Authority string
	Target    string // path and query, as it goes over the wire
	Headers   [][2]string
	ClientIP  string
	EarlyData bool

	expect        Answer
	upstream      map[string]string
	upstreamLines []string
	keys          []string // of the run
}

func (f *Fixture) exchange(t *Table, r *Row, version int) (*Exchange, error) {
	request, err := f.fill(r.Request)
	if err != nil {
		return nil, err
	}
	method, raw, _ := strings.Cut(request, " ")
	scheme, rest, _ := strings.Cut(raw, "://")
	authority, target := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, target = rest[:i], rest[i:]
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	x := &Exchange{
		Row: r, Version: version, TLS: scheme == "https", Method: method, Authority: authority, Target: target,
		ClientIP: r.ClientIP, EarlyData: r.EarlyData, expect: t.expected(r), upstream: make(map[string]string),
	}
	for _, k := range f.keys {
		x.keys = append(x.keys, k.secret.Reveal())
	}
	x.SNI, _, _ = strings.Cut(authority, ":")
	if r.Target != "" {
		if x.Target, err = f.fill(r.Target); err != nil {
			return nil, err
		}
	}
	if r.Host != "" {
		x.Authority = r.Host
	}
	if r.SNI != "" {
		x.SNI = strings.TrimPrefix(r.SNI, "-")
	}
	for _, h := range r.Headers {
		filled, err := f.fill(h)
		if err != nil {
			return nil, err
		}
		name, value, _ := strings.Cut(filled, ":")
		x.Headers = append(x.Headers, [2]string{name, strings.TrimPrefix(value, " ")})
	}
	for k, v := range r.Upstream {
		if x.upstream[k], err = f.fill(v); err != nil {
			return nil, err
		}
	}
	for _, l := range r.UpstreamLines {
		filled, err := f.fill(l)
		if err != nil {
			return nil, err
		}
		x.upstreamLines = append(x.upstreamLines, filled)
	}
	return x, nil
}
