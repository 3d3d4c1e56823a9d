package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/keystile/keystile/internal/table"
)

// caddyBinary is the one under test; `make build` leaves it here.
const caddyBinary = "bin/caddy"

// caddyHost is a Caddy process in front of an upstream of this process.
type caddyHost struct {
	process  *exec.Cmd
	exited   chan error
	upstream *upstream
	https    string // address
	http     string
	dir      string
	log      *denialLog
	secrets  []string
}

var caddyfile = template.Must(template.New("").Parse(`{
	http_port {{.HTTP}}
	https_port {{.HTTPS}}
	default_bind 127.0.0.1
	default_sni localhost
	fallback_sni localhost
	admin off
	skip_install_trust
	storage file_system {{.Dir}}/storage
	log default {
		output stderr
		format json
		level DEBUG
	}
	servers {
		trusted_proxies static 127.0.0.1/32
		trusted_proxies_strict
	}
	keystile {
		bundle {{.Name}} {
			file {{.Dir}}/bundle.keystile
			signer {{.Signer}}
			state {{.Dir}}/state
			audience {{.Audience}}
		}
	}
}
(edge) {
	keystile {{.Name}}
	reverse_proxy {{.Upstream}}
}
http:// {
	import edge
}
https:// {
	tls {{.Dir}}/cert.pem {{.Dir}}/key.pem
	import edge
}
`))

func startCaddy(f *table.Fixture) (h *caddyHost, err error) {
	binary, err := os.Stat(caddyBinary)
	if err != nil {
		return nil, fmt.Errorf("%s is missing: make it with `make build`", caddyBinary)
	}
	if file := newerSource(binary.ModTime()); file != "" {
		fmt.Fprintf(os.Stderr, "note: %s is older than %s; `make build` makes it anew\n", caddyBinary, file)
	}
	h = &caddyHost{exited: make(chan error, 1), secrets: f.Secrets()}
	if h.dir, err = os.MkdirTemp("", "conformance-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
			h = nil
		}
	}()
	if err := makeCertificate(h.dir); err != nil {
		return h, err
	}
	if err := os.WriteFile(filepath.Join(h.dir, "bundle.keystile"), f.Pack, 0o600); err != nil {
		return h, err
	}
	if h.upstream, err = startUpstream(); err != nil {
		return h, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return h, err
	}
	h.http, h.https = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1]
	config, err := os.Create(filepath.Join(h.dir, "Caddyfile"))
	if err != nil {
		return h, err
	}
	defer config.Close()
	if err := caddyfile.Execute(config, map[string]string{
		"HTTP": ports[0], "HTTPS": ports[1], "Dir": h.dir, "Name": f.Policy.Name, "Signer": f.Signer,
		"Audience": table.Audience, "Upstream": h.upstream.address,
	}); err != nil {
		return h, err
	}
	return h, h.start(config.Name())
}

// newerSource names a file that bin/caddy is made of and that has changed since.
func newerSource(built time.Time) (newer string) {
	for _, dir := range []string{"core", "caddymodule", "policies"} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || filepath.Ext(path) != ".go" {
				return err
			}
			if info, err := d.Info(); err == nil && info.ModTime().After(built) {
				newer = path
				return fs.SkipAll
			}
			return nil
		})
	}
	return newer
}

func (h *caddyHost) start(config string) error {
	h.process = exec.Command(caddyBinary, "run", "--config", config, "--adapter", "caddyfile")
	h.process.Env = append(os.Environ(), "XDG_DATA_HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir)
	stderr, err := h.process.StderrPipe()
	if err != nil {
		return err
	}
	if err := h.process.Start(); err != nil {
		return err
	}
	h.log = readLog(stderr)
	go func() { h.exited <- h.process.Wait() }()
	deadline := time.Now().Add(20 * time.Second)
	for {
		select {
		case err := <-h.exited:
			h.exited <- err
			return fmt.Errorf("caddy ended: %v\n%s", err, h.log.tail())
		case <-time.After(20 * time.Millisecond):
		}
		conn, err := net.Dial("tcp", h.https)
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("caddy does not answer\n%s", h.log.tail())
		}
	}
}

// Close ends Caddy, and says if a key of the run is anywhere in its log.
func (h *caddyHost) Close() error {
	var failed error
	if h.process != nil && h.process.Process != nil {
		h.process.Process.Signal(syscall.SIGTERM)
		select {
		case <-h.exited:
		case <-time.After(10 * time.Second):
			h.process.Process.Kill()
			failed = errors.New("caddy did not end")
		}
	}
	if h.log != nil {
		for _, line := range h.log.all() {
			// Caddy's own lines show headers that its operator has to redact;
			// Keystile's never hold a key (R74).
			if !strings.Contains(line, `"logger":"http.handlers.keystile"`) && !strings.Contains(line, `"logger":"keystile"`) {
				continue
			}
			if slices.ContainsFunc(h.secrets, func(s string) bool { return strings.Contains(line, s) }) {
				failed = errors.Join(failed, errors.New("a key or token is in the log"))
				break
			}
		}
	}
	if h.upstream != nil {
		h.upstream.server.Close()
	}
	return errors.Join(failed, os.RemoveAll(h.dir))
}

// Name is "caddy".
func (h *caddyHost) Name() string { return "caddy" }

// Versions are those of HTTP that Caddy speaks.
func (h *caddyHost) Versions() []int { return []int{1, 2, 3} }

// logWait is how long a denial's line may take to arrive.
const logWait = 2 * time.Second

// Do sends one exchange and gathers what the client, the upstream and the log
// saw of it.
func (h *caddyHost) Do(x *table.Exchange) (*table.Result, error) {
	if x.ClientIP != "" {
		x.Headers = append(x.Headers, [2]string{"X-Forwarded-For", x.ClientIP})
	}
	address := h.https
	if !x.TLS {
		address = h.http
	}
	before := h.upstream.count()
	r, err := send(address, x)
	if err != nil {
		return nil, err
	}
	if n := h.upstream.count() - before; n > 0 {
		if n > 1 {
			return nil, fmt.Errorf("the upstream was reached %d times", n)
		}
		r.Upstream = h.upstream.last()
		if lines := r.Header["X-Nonce"]; len(lines) == 1 && lines[0] == h.upstream.nonce {
			r.Reason = "ok"
		}
		return r, nil
	}
	if r.Refused || x.Row.Parser {
		return r, nil
	}
	if ids := r.Header["Request-Id"]; len(ids) == 1 {
		r.Reason = h.log.reason(ids[0])
	} else if r.Status == http.StatusNoContent {
		r.Reason = "preflight"
	}
	return r, nil
}

// upstream answers with a nonce of this run and remembers what it received.
type upstream struct {
	server  *http.Server
	address string
	nonce   string

	mu       sync.Mutex
	requests int
	received *table.Received
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

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.requests++
	u.received = &table.Received{Method: r.Method, Target: r.RequestURI, Header: r.Header}
	u.mu.Unlock()
	w.Header().Set("X-Nonce", u.nonce)
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.requests
}

func (u *upstream) last() *table.Received {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.received
}

// denialLog reads a Caddy's log and remembers the reasons in it.
type denialLog struct {
	mu      sync.Mutex
	arrived *sync.Cond
	lines   []string
	reasons map[string]string
}

func readLog(r io.Reader) *denialLog {
	l := &denialLog{reasons: make(map[string]string)}
	l.arrived = sync.NewCond(&l.mu)
	go func() {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			l.add(lines.Text())
		}
	}()
	return l
}

func (l *denialLog) add(line string) {
	var entry struct {
		Logger    string `json:"logger"`
		Message   string `json:"msg"`
		RequestID string `json:"request_id"`
		Reason    string `json:"reason"`
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if json.Unmarshal([]byte(line), &entry) == nil && entry.Logger == "http.handlers.keystile" && entry.Message == "denied" {
		l.reasons[entry.RequestID] = entry.Reason
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

// freePorts finds ports that are free for TCP and UDP.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports, nil
}

// makeCertificate makes the one that answers for every name: whose it is is not
// what tables are about.
func makeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "conformance"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}
