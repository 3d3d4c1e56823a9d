package table

import (
	"errors"
	"fmt"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core/policy"
)

// hosts are those that a row can name.
var hosts = []string{"core", "caddy", "envoy"}

func (t *Table) check(r *Row) error {
	if err := r.checkRequest(); err != nil {
		return err
	}
	if err := r.checkHosts(); err != nil {
		return err
	}
	if err := t.checkWant(&r.Want); err != nil {
		return err
	}
	for key, w := range r.On {
		if err := r.checkOn(key); err != nil {
			return err
		}
		if err := t.checkWant(&w); err != nil {
			return fmt.Errorf("on %s: %w", key, err)
		}
	}
	return nil
}

func (r *Row) checkRequest() error {
	method, raw, ok := strings.Cut(r.Request, " ")
	u, err := url.Parse(raw)
	if !ok || method == "" || err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("request %q: write METHOD https://host/path; what no URL can say goes into target, host and sni", r.Request)
	}
	if err := checkLines("header", r.Headers); err != nil {
		return err
	}
	if err := checkLines("trailer", r.Trailers); err != nil {
		return err
	}
	for _, h := range r.Headers {
		name, _, _ := strings.Cut(h, ":")
		switch textproto.CanonicalMIMEHeaderKey(name) {
		case "Content-Length", "Transfer-Encoding":
			return fmt.Errorf("header %q: the client frames the message; say body, chunked or trailers instead", h)
		}
	}
	for _, v := range r.HTTP {
		if v < 1 || v > 3 {
			return fmt.Errorf("http %d: use 1, 2 or 3", v)
		}
	}
	return nil
}

func checkLines(what string, lines []string) error {
	for _, l := range lines {
		if name, _, ok := strings.Cut(l, ":"); !ok || name == "" {
			return fmt.Errorf("%s %q: write it as Name: value", what, l)
		}
	}
	return nil
}

func (r *Row) checkHosts() error {
	for _, host := range r.Only {
		if !slices.Contains(hosts, host) {
			return fmt.Errorf("only %q: use %s", host, strings.Join(hosts, ", "))
		}
	}
	alone := slices.Equal(r.Only, []string{"core"})
	if r.EarlyData && !alone {
		return errors.New("early_data can be shown on core alone: add only: [core]")
	}
	if r.Now == "" {
		return nil
	}
	if !alone {
		return errors.New("now can be set on core alone: add only: [core]")
	}
	_, err := moment(r.Now, time.Now())
	return err
}

// checkOn looks at a host that an expectation of its own is for.
func (r *Row) checkOn(key string) error {
	host, version, one := strings.Cut(key, "/")
	switch {
	case !slices.Contains(hosts, host) || one && !slices.Contains([]string{"1", "2", "3"}, version):
		return fmt.Errorf("on %q: name a host (%s), or one version of HTTP there, as in caddy/2", key, strings.Join(hosts, ", "))
	case len(r.Only) > 0 && !slices.Contains(r.Only, host):
		return fmt.Errorf("on %q: the row is not for this host; add it to only", key)
	case one && len(r.HTTP) > 0 && !slices.Contains(r.HTTP, int(version[0]-'0')):
		return fmt.Errorf("on %q: the row is not sent by this version; add it to http", key)
	}
	return nil
}

func (t *Table) checkWant(w *Want) error {
	if _, ok := t.Answers[w.Answer]; w.Answer != "" && !ok {
		return fmt.Errorf("answer %q is not under answers", w.Answer)
	}
	if err := checkLines("upstream line", slices.Concat(w.UpstreamLines, w.UpstreamTrailers)); err != nil {
		return err
	}
	if w.Reason != reasonOK && w.ofUpstream() {
		return errors.New("what does not go on has no upstream: remove upgraded and all that begins with upstream")
	}
	switch _, known := policy.ParseReason(w.Reason); {
	case w.Parser && w.Reason == "":
		return nil
	case w.Reason == reasonOK:
		if w.Answer != "" || w.Expect.Status != 0 {
			return errors.New("an allowed row has no answer of the edge: it says what the upstream gets")
		}
		return nil
	case !known && w.Reason != reasonPreflight:
		return fmt.Errorf("reason %q is not one of the list", w.Reason)
	}
	if t.expected(w).Status == 0 {
		return errors.New("a denial needs a status, in answer or expect")
	}
	return nil
}

// ofUpstream says whether something is expected of the upstream.
func (w *Want) ofUpstream() bool {
	return w.Upgraded || w.UpstreamHost != "" || w.UpstreamBody != nil || len(w.Upstream) > 0 ||
		len(w.UpstreamLines) > 0 || len(w.NoUpstream) > 0 || len(w.UpstreamTrailers) > 0
}

// expected is the whole answer.
func (t *Table) expected(w *Want) Answer {
	a := t.Answers[w.Answer]
	headers := make(map[string]string)
	for _, from := range []map[string]string{a.Headers, w.Expect.Headers} {
		for k, v := range from {
			headers[k] = v
		}
	}
	a.Headers = headers
	a.NoHeaders = slices.Concat(a.NoHeaders, w.Expect.NoHeaders)
	if w.Expect.Status != 0 {
		a.Status = w.Expect.Status
	}
	if w.Expect.Body != nil {
		a.Body = w.Expect.Body
	}
	return a
}
