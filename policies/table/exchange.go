package table

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"time"
)

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
	case "basic": // as a password of Basic credentials
		return base64.StdEncoding.EncodeToString([]byte("x:" + key)), nil
	}
	return "", fmt.Errorf("{%s.%s}: use id, typo, cut, percent, upper or basic", name, form)
}

// Exchange is one row made ready to send to one host by one version of HTTP.
type Exchange struct {
	Row     *Row
	Version int // 1, 2 or 3
	// Want is what must become of it here; Own says that it is not what the row
	// says of other hosts.
	Want *Want
	Own  bool

	TLS       bool
	SNI       string
	Method    string
	Authority string
	Target    string // path and query, as it goes over the wire
	Headers   [][2]string
	Body      string
	Chunked   bool // without a length
	Trailers  [][2]string
	ClientIP  string
	EarlyData bool
	Now       time.Time // zero if the clock is the system's

	expect           Answer
	upstream         map[string]string
	upstreamLines    []string
	upstreamHost     string
	upstreamBody     string
	upstreamTrailers map[string][]string
	keys             []string // of the run
}

// HasBody says whether something follows the header, be it empty.
func (x *Exchange) HasBody() bool { return x.Body != "" || x.Chunked }

// want is what must become of the row on a host.
func (r *Row) want(host string, version int) (w *Want, own bool) {
	for _, key := range []string{fmt.Sprintf("%s/%d", host, version), host} {
		if w, ok := r.On[key]; ok {
			return &w, true
		}
	}
	return &r.Want, false
}

func (f *Fixture) exchange(t *Table, r *Row, host string, version int) (*Exchange, error) {
	x := &Exchange{
		Row: r, Version: version, Body: r.Body, Chunked: r.Chunked || len(r.Trailers) > 0, ClientIP: r.ClientIP, EarlyData: r.EarlyData,
	}
	x.Want, x.Own = r.want(host, version)
	x.expect = t.expected(x.Want)
	for _, k := range f.keys {
		x.keys = append(x.keys, k.secret.Reveal())
	}
	var err error
	if x.Now, err = moment(r.Now, f.now); err != nil {
		return nil, err
	}
	if err := f.address(x, r); err != nil {
		return nil, err
	}
	if x.Headers, err = f.lines(r.Headers); err != nil {
		return nil, err
	}
	if x.Trailers, err = f.lines(r.Trailers); err != nil {
		return nil, err
	}
	return x, f.expectUpstream(x)
}

// address fills in where the exchange goes.
func (f *Fixture) address(x *Exchange, r *Row) error {
	request, err := f.fill(r.Request)
	if err != nil {
		return err
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
	x.TLS, x.Method, x.Authority, x.Target = scheme == "https", method, authority, target
	x.SNI, _, _ = strings.Cut(authority, ":")
	if r.Target != "" {
		if x.Target, err = f.fill(r.Target); err != nil {
			return err
		}
	}
	if r.Host != "" {
		if x.Authority, err = f.fill(r.Host); err != nil {
			return err
		}
	}
	if r.SNI != "" {
		x.SNI = strings.TrimPrefix(r.SNI, "-")
	}
	return nil
}

// lines takes lines apart, with keys and tokens filled in.
func (f *Fixture) lines(list []string) (lines [][2]string, err error) {
	for _, l := range list {
		filled, err := f.fill(l)
		if err != nil {
			return nil, err
		}
		name, value, _ := strings.Cut(filled, ":")
		lines = append(lines, [2]string{name, strings.TrimPrefix(value, " ")})
	}
	return lines, nil
}

// expectUpstream fills in what the upstream must get.
func (f *Fixture) expectUpstream(x *Exchange) (err error) {
	w := x.Want
	x.upstream = make(map[string]string)
	for k, v := range w.Upstream {
		if x.upstream[k], err = f.fill(v); err != nil {
			return err
		}
	}
	for _, l := range w.UpstreamLines {
		filled, err := f.fill(l)
		if err != nil {
			return err
		}
		x.upstreamLines = append(x.upstreamLines, filled)
	}
	x.upstreamHost, x.upstreamBody = x.Authority, x.Body
	if w.UpstreamHost != "" {
		x.upstreamHost = w.UpstreamHost
	}
	if w.UpstreamBody != nil {
		x.upstreamBody = *w.UpstreamBody
	}
	trailers, err := f.lines(w.UpstreamTrailers)
	x.upstreamTrailers = byName(trailers)
	return err
}
