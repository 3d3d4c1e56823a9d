package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

// probe is a request as no client would send it, byte by byte, or as the fields of
// HTTP/2. In it LINE stands for the line of a good key, KEY for the key, HOST for a
// host that is served and PATH for a path where the key may do everything.
type probe struct {
	name   string
	raw    string      // HTTP/1
	fields [][2]string // HTTP/2
	plain  bool        // without TLS
	policy string      // the only one that it is for; all if empty
	parser bool        // a server's own parser may refuse it first
	shows  string      // a header field that the upstream's lines are told of

	// want is its fate with a key. Without LINE what would go on is `missing`, and all
	// else has the same fate; keyed probes are not sent without.
	want         fate
	caddy, envoy *fate // in place of want, where a host differs for good
	keyed        bool
}

// fate is what becomes of a probe.
type fate struct {
	reason string // "ok" if it goes on, "" if the server's own parser refuses it
	// What the upstream then gets, where it is not GET of PATH for HOST without a body.
	method, target, host, body, trailer string
	status                              int    // of the upstream's answer, as it arrives; 200 if 0
	shown                               string // lines of the field that the probe shows
}

func (f fate) String() string {
	switch f.reason {
	case "ok":
		return fmt.Sprintf("goes on as %s %s to %q, body %q, trailer %q, answered %d, lines %q", f.method, f.target, f.host, f.body, f.trailer, f.status, f.shown)
	case "":
		return "refused by the parser"
	}
	return "denied: " + f.reason
}

// api is what probes need to know of a policy.
type api struct{ policy, host, path, key, line string }

var apis = []api{
	{"default", "api.test", "/x", "secret", "Authorization: Bearer KEY\r\n"},
	{"enterprise", "api.enterprise.example", "/v1/invoices", "full", "Authorization: Bearer KEY\r\n"},
	{"example", "api.example.com", "/v1/users", "live", "Authorization: Bearer KEY\r\n"},
	{"vesuviopay", "api.vesuviopay.com", "/api/v1/orders", "secret", "X-API-Key: KEY\r\n"},
	{"vinfer", "api.vinfer.ai", "/v1/models", "admin", "Authorization: Bearer KEY\r\n"},
	{"vinr", "api.vinr.com", "/v1/payments", "secret", "X-Api-Key: KEY\r\n"},
}

// runProbes sends all probes to all APIs, or to that of one policy, through Caddy and
// Envoy, and says where one does not become what it has to.
func runProbes(policy string, verbose bool) (passed, failed int, err error) {
	for _, a := range apis {
		if policy != "" && policy != a.policy {
			continue
		}
		ok, wrong, err := a.run(verbose)
		passed, failed = passed+ok, failed+wrong
		if err != nil {
			return passed, failed, fmt.Errorf("%s: %w", a.policy, err)
		}
		fmt.Printf("%s: %d probes as they have to be, %d not\n", a.policy, ok, wrong)
	}
	return passed, failed, nil
}

func (a api) run(verbose bool) (passed, failed int, err error) {
	f, err := a.fixture()
	if err != nil {
		return 0, 0, err
	}
	caddy, err := startCaddy(f)
	if err != nil {
		return 0, 0, startFailed(caddy, err)
	}
	envoy, err := startEnvoy(f, 1, false)
	if err != nil {
		return 0, 0, errors.Join(startFailed(envoy, err), caddy.Close())
	}
	a.key = f.Secret(a.key)
	for _, s := range []*server{caddy, envoy} {
		for _, p := range probes {
			for _, keyless := range []bool{false, true} {
				if keyless && p.keyed || p.policy != "" && p.policy != a.policy {
					continue
				}
				if err := s.check(a, p, keyless); err != nil {
					failed++
					fmt.Printf("FAIL %s on %s, %s: %v\n", p.title(keyless), s.name, a.policy, err)
					continue
				}
				passed++
				if verbose {
					fmt.Printf("ok   %s on %s, %s\n", p.title(keyless), s.name, a.policy)
				}
			}
		}
	}
	return passed, failed, errors.Join(caddy.Close(), envoy.Close())
}

// fixture has the keys of the policy's own table.
func (a api) fixture() (*table.Fixture, error) {
	document, err := policies.Policy(a.policy)
	if err != nil {
		return nil, err
	}
	source, err := policies.Table(a.policy)
	if err != nil {
		return nil, err
	}
	t, err := table.Load(a.policy, source)
	if err != nil {
		return nil, err
	}
	return t.Issue(a.policy, document)
}

func (p probe) title(keyless bool) string {
	if keyless {
		return p.name + ", without a key"
	}
	return p.name
}

// fill puts what is the API's into a probe's text.
func (a api) fill(s string, keyless bool) string {
	line := a.line
	if keyless {
		line = ""
	}
	return strings.NewReplacer("LINE", strings.ReplaceAll(line, "KEY", a.key), "KEY", a.key, "HOST", a.host, "PATH", a.path).Replace(s)
}

// fateOn is what must become of the probe on a host.
func (p probe) fateOn(host string, a api, keyless bool) fate {
	f := p.want
	switch {
	case host == "caddy" && p.caddy != nil:
		f = *p.caddy
	case host == "envoy" && p.envoy != nil:
		f = *p.envoy
	}
	if keyless && f.reason == "ok" {
		f = missing
	}
	if f.reason != "ok" {
		return fate{reason: f.reason}
	}
	f.method, f.target, f.host = cmp.Or(f.method, "GET"), a.fill(cmp.Or(f.target, "PATH"), false), a.fill(cmp.Or(f.host, "HOST"), false)
	f.status = cmp.Or(f.status, 200)
	return f
}

// check sends a probe, and says how it does not become what it has to.
func (s *server) check(a api, p probe, keyless bool) error {
	before := s.upstream.count()
	status, header, err := s.send(a, p, keyless)
	if err != nil {
		return err
	}
	if s.upstream.count() > before {
		s.follow(a, p)
	}
	got, err := s.became(p, before, status, header)
	if err != nil {
		return err
	}
	// A parser refuses with a status of its own, or by closing.
	bad := got.reason == "" && status/100 != 4 && !slices.Contains([]int{0, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported}, status)
	want := p.fateOn(s.name, a, keyless)
	if got != want && (got.reason != "" || !p.parser) || bad {
		return fmt.Errorf("%s (%d), and not: %s", got, status, want)
	}
	return nil
}

// became is what the upstream and the log saw.
func (s *server) became(p probe, before, status int, header map[string][]string) (f fate, err error) {
	requests := slices.DeleteFunc(s.upstream.since(before), func(r *table.Received) bool { return strings.HasSuffix(r.Target, last) })
	if len(requests) > 1 {
		return f, fmt.Errorf("the upstream got %d requests, the second %s %s", len(requests), requests[1].Method, requests[1].Target)
	}
	if len(requests) == 1 {
		r := requests[0]
		if lines := r.Header["Keystile-Key-Id"]; len(lines) != 1 || lines[0] == "evil" {
			return f, fmt.Errorf("the upstream got Keystile-Key-Id %q", lines)
		}
		shown := strings.Join(r.Header[p.shows], " | ")
		return fate{"ok", r.Method, r.Target, r.Host, r.Body, trailerText(r), status, shown}, leaked(r, s.secrets)
	}
	if ids := header["Request-Id"]; len(ids) == 1 {
		f.reason = s.log.reason(ids[0])
	}
	return f, nil
}

func trailerText(r *table.Received) string {
	var lines []string
	for name, values := range r.Trailer {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

// leaked says where the upstream got an API key, an identity or an override.
func leaked(r *table.Received, secrets []string) error {
	for name, lines := range r.Header {
		plain := strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
				return c
			}
			return '-'
		}, strings.ToLower(name))
		for _, line := range lines {
			if contains(line, secrets) || strings.Contains(line, "evil") || strings.Contains(plain, "method-override") {
				return fmt.Errorf("the upstream got %s: %s", name, line)
			}
		}
	}
	return nil
}

// last is the query of the request that follows a probe.
const last = "?after-the-probe"

// follow sends a good request behind a probe that has gone on. What the probe had
// behind it, on the same connection to the upstream, is there before this one.
func (s *server) follow(a api, p probe) {
	s.send(a, probe{raw: "GET PATH" + last + " HTTP/1.1\r\nHost: HOST\r\nLINEConnection: close\r\n\r\n"}, false)
}

// send sends a probe and returns the answer, with status 0 if the connection was
// closed without one.
func (s *server) send(a api, p probe, keyless bool) (status int, header map[string][]string, err error) {
	x := &table.Exchange{TLS: !p.plain, SNI: a.host}
	address, protocol := s.https, "http/1.1"
	if p.plain {
		address = s.http
	}
	if p.fields != nil {
		protocol = "h2"
	}
	conn, err := dial(address, x, protocol)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if p.fields == nil {
		status, header = probe1(conn, a.fill(p.raw, keyless))
		return status, header, nil
	}
	status, header = probe2(conn, a.fields(p.fields, keyless))
	return status, header, nil
}

func probe1(conn net.Conn, raw string) (status int, header map[string][]string) {
	if _, err := io.WriteString(conn, raw); err != nil {
		return 0, nil
	}
	from := bufio.NewReader(conn)
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		return 0, nil
	}
	response.Body.Close()
	if response.StatusCode == http.StatusSwitchingProtocols && !tunnels(conn, from) {
		return noTunnel, nil
	}
	return response.StatusCode, response.Header
}

// noTunnel stands for a 101 behind which client and upstream do not hear each other.
const noTunnel = -http.StatusSwitchingProtocols

// tunnels says whether the upstream hears what is said behind a 101.
func tunnels(conn net.Conn, from *bufio.Reader) bool {
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "is anybody there\r\n\r\n"); err != nil {
		return false
	}
	heard, err := from.Peek(len("HTTP"))
	return err == nil && string(heard) != "HTTP" // which is the edge's own answer
}

// fields are a probe's, where the field "LINE" stands for that of the key.
func (a api) fields(list [][2]string, keyless bool) (out [][2]string) {
	name, value, _ := strings.Cut(strings.TrimSuffix(a.line, "\r\n"), ": ")
	for _, f := range list {
		if f[0] == "LINE" {
			if keyless {
				continue
			}
			f = [2]string{strings.ToLower(name), strings.ReplaceAll(f[1], "VALUE", value)}
		}
		out = append(out, [2]string{f[0], a.fill(f[1], keyless)})
	}
	return out
}

func probe2(conn net.Conn, fields [][2]string) (status int, header map[string][]string) {
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return 0, nil
	}
	framer := http2.NewFramer(conn, conn)
	if request2(framer, fields, &table.Exchange{}) != nil {
		return 0, nil
	}
	r, err := response2(framer)
	if err != nil || r.Refused {
		return 0, nil
	}
	return r.Status, r.Header
}
