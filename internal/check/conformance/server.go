package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keystile/keystile/internal/testing/address"

	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies/table"
)

// server is a server process with Keystile in it, in front of an upstream of this
// process.
type server struct {
	name     string
	versions []int
	setsID   bool // upstream, as Request-Id
	process  *exec.Cmd
	exited   chan error
	envoy    *envoy.Process // in place of process
	upstream *upstream
	origin   *origin // of the bundle; nil where it has been given
	https    string  // address
	http     string
	dir      string
	log      *denialLog
	own      []string // one of them is in each of Keystile's own lines; nil where all lines are clean
	secrets  []string
}

// newServer prepares a folder with a certificate, an upstream and two addresses.
// It is to be closed also where it returns an error.
func newServer(name string, versions []int, f *table.Fixture) (s *server, err error) {
	s = &server{name: name, versions: versions, exited: make(chan error, 1), secrets: f.Secrets()}
	if s.dir, err = os.MkdirTemp("", "conformance-"); err != nil {
		return s, err
	}
	if err := certificate.Write(s.dir); err != nil {
		return s, err
	}
	if s.upstream, err = startUpstream(); err != nil {
		return s, err
	}
	if s.http, err = address.Free(); err != nil {
		return s, err
	}
	s.https, err = address.Free()
	return s, err
}

// warnIfOlder says so if a file has changed since what is under test was made of
// it.
func warnIfOlder(path string, built fs.FileInfo, dirs ...string) {
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(source string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(source, "_test.go") || filepath.Ext(source) != ".go" {
				return err
			}
			if info, err := d.Info(); err == nil && info.ModTime().After(built.ModTime()) {
				fmt.Fprintf(os.Stderr, "note: %s is older than %s; `make build wasm` makes it anew\n", path, source)
				return fs.SkipAll
			}
			return nil
		})
	}
}

// startWait is how long a server may take until it answers: long, for a machine that is
// busy.
const startWait = 2 * time.Minute

// start starts the process and waits until it answers. denial finds a denial in
// a line of its log.
func (s *server) start(process *exec.Cmd, denial func(line string) (id, reason string)) error {
	s.process = process
	stderr, err := process.StderrPipe()
	if err != nil {
		return err
	}
	if err := process.Start(); err != nil {
		return err
	}
	s.log = newLog(denial)
	go func() {
		s.log.read(stderr) // to its end, which Wait would cut off
		s.exited <- process.Wait()
	}()
	return s.answers()
}

// answers waits until the server answers over plain HTTP, and by TLS in each version
// of HTTP.
func (s *server) answers() error {
	deadline := time.Now().Add(startWait)
	if err := s.answersItself(&table.Exchange{Version: 1}, deadline); err != nil {
		return err
	}
	for _, version := range s.versions {
		if err := s.answersItself(&table.Exchange{Version: version, TLS: true, SNI: "localhost"}, deadline); err != nil {
			return err
		}
	}
	return nil
}

// answersItself waits until a request for nobody's host is denied, and the denial is in
// the server's own log: a listener may be somebody else's.
func (s *server) answersItself(x *table.Exchange, deadline time.Time) error {
	x.Method, x.Target, x.Authority = "GET", "/", "nobody.invalid"
	address := s.http
	if x.TLS {
		address = s.https
	}
	for {
		r, err := send(address, x)
		switch {
		case err != nil || r.Refused:
		case len(r.Header["Request-Id"]) != 1 || s.log.reason(r.Header["Request-Id"][0]) == "":
			return fmt.Errorf("at %s somebody else answers by HTTP/%d (%d %v), and not %s: free the port\n%s", address, x.Version, r.Status, r.Header, s.name, s.log.tail())
		default:
			return nil
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("%s ended: %v\n%s", s.name, err, s.log.tail())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer at %s by HTTP/%d: %v\n%s", s.name, address, x.Version, err, s.log.tail())
		}
	}
}

// Close ends the server, and says if a key of the run is anywhere in its log.
func (s *server) Close() error {
	var failed error
	if s.process != nil && s.process.Process != nil {
		s.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(time.Minute):
			s.process.Process.Kill()
			failed = fmt.Errorf("%s did not end", s.name)
		}
	}
	failed = errors.Join(failed, s.envoy.Close())
	if s.log != nil {
		for _, line := range s.log.all() {
			// Envoy's own lines show what its operator lets them; Keystile's never hold
			// a key (R74), nor do Caddy's.
			if (s.own == nil || contains(line, s.own)) && contains(line, s.secrets) {
				failed = errors.Join(failed, errors.New("a key or token is in the log"))
				break
			}
		}
	}
	if s.upstream != nil {
		s.upstream.server.Close()
	}
	if s.origin != nil {
		s.origin.server.Close()
	}
	return errors.Join(failed, os.RemoveAll(s.dir))
}

func contains(line string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(line, s) })
}

// Name is the server's.
func (s *server) Name() string { return s.name }

// Versions are those of HTTP that the server speaks.
func (s *server) Versions() []int { return s.versions }

// logWait is how long a denial's line may take to arrive.
const logWait = 30 * time.Second

// Do sends one exchange and gathers what the client, the upstream and the log
// saw of it.
func (s *server) Do(x *table.Exchange) (*table.Result, error) {
	if x.ClientIP != "" {
		x.Headers = append(x.Headers, [2]string{"X-Forwarded-For", x.ClientIP})
	}
	if s.setsID {
		x.Headers = append(x.Headers, forgedIDs...)
	}
	address := s.https
	if !x.TLS {
		address = s.http
	}
	before := s.upstream.count()
	r, err := send(address, x)
	if err != nil {
		return nil, err
	}
	if n := s.upstream.count() - before; n > 0 {
		if n > 1 {
			return nil, fmt.Errorf("the upstream was reached %d times", n)
		}
		r.Upstream = s.upstream.last()
		if err := s.checkID(r.Upstream); err != nil {
			return nil, err
		}
		if lines := r.Header["X-Nonce"]; len(lines) == 1 && lines[0] == s.upstream.nonce {
			r.Reason = "ok"
		}
		return r, nil
	}
	if r.Refused || x.Want.Parser {
		return r, nil
	}
	if ids := r.Header["Request-Id"]; len(ids) == 1 {
		r.Reason = s.log.reason(ids[0])
	} else if r.Status == http.StatusNoContent {
		r.Reason = "preflight"
	}
	return r, nil
}

// forgedIDs are sent with every request to a host that gives it an ID of its own.
var forgedIDs = [][2]string{{"Request-Id", "forged"}, {"request~id", "forged"}}

// checkID says why the Request-Id that the upstream got is not the host's own: a client's
// is replaced, under every spelling, also on public routes.
func (s *server) checkID(up *table.Received) error {
	if !s.setsID {
		return nil
	}
	for name, lines := range up.Header {
		if name != "Request-Id" && strings.EqualFold(strings.ReplaceAll(name, "~", "-"), "Request-Id") || slices.Contains(lines, "forged") {
			return fmt.Errorf("the upstream got a client's request ID, in %s", name)
		}
	}
	if lines := up.Header["Request-Id"]; len(lines) != 1 || len(lines[0]) < 20 {
		return fmt.Errorf("the upstream got the Request-Id %q", lines)
	}
	return nil
}

// upstream answers with a nonce of this run and remembers what it received.
type upstream struct {
	server  *http.Server
	address string
	nonce   string

	mu       sync.Mutex
	received []*table.Received
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{address: l.Addr().String(), nonce: rand.Text()}
	u.server = &http.Server{Handler: u}
	go u.server.Serve(l)
	return u, nil
}

// ServeHTTP agrees to every protocol that it is asked for, and echoes what it is then
// told: only the edge stands between a client and a tunnel. With the query "refuse" it
// agrees to none, and with "switch" it changes to one that nobody asked for.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := &table.Received{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header}
	i := u.note(got)
	body, _ := io.ReadAll(r.Body) // one that is cut short has been reached all the same
	whole := *got
	whole.Body, whole.Trailer = string(body), r.Trailer
	maps.DeleteFunc(whole.Trailer, func(_ string, lines []string) bool { return lines == nil }) // announced alone
	u.complete(i, &whole)
	w.Header().Set("X-Nonce", u.nonce)
	protocol := r.Header.Get("Upgrade")
	if r.URL.RawQuery == "switch" {
		protocol = "websocket"
	}
	if protocol != "" && r.URL.RawQuery != "refuse" {
		u.tunnel(w, protocol)
	}
}

// note remembers a request whose header has come, and returns its place.
func (u *upstream) note(r *table.Received) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received = append(u.received, r)
	return len(u.received) - 1
}

// complete replaces it by the whole request.
func (u *upstream) complete(i int, r *table.Received) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received[i] = r
}

func (u *upstream) tunnel(w http.ResponseWriter, protocol string) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-Nonce: %s\r\n\r\n", protocol, u.nonce)
	io.Copy(conn, buffered)
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.received)
}

// since are the requests after the first n.
func (u *upstream) since(n int) []*table.Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.received[n:])
}

func (u *upstream) last() *table.Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.received[len(u.received)-1]
}

// denialLog reads a server's log and remembers the reasons in it.
type denialLog struct {
	denial  func(line string) (id, reason string)
	mu      sync.Mutex
	arrived *sync.Cond
	lines   []string
	reasons map[string]string
}

func newLog(denial func(line string) (id, reason string)) *denialLog {
	l := &denialLog{denial: denial, reasons: make(map[string]string)}
	l.arrived = sync.NewCond(&l.mu)
	return l
}

func (l *denialLog) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l.add(lines.Text())
	}
}

func (l *denialLog) add(line string) {
	id, reason := l.denial(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if id != "" {
		l.reasons[id] = reason
		l.arrived.Broadcast()
	}
}

func (l *denialLog) reason(id string) string {
	timeout := time.AfterFunc(logWait, func() { l.arrived.Broadcast() })
	defer timeout.Stop()
	deadline := time.Now().Add(logWait)
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.reasons[id] == "" && time.Now().Before(deadline) {
		l.arrived.Wait()
	}
	return l.reasons[id]
}

func (l *denialLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

func (l *denialLog) tail() string {
	lines := l.all()
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
