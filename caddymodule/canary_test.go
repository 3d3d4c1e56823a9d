package caddymodule_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/internal/testing/canary"
	"github.com/keystile/keystile/internal/testing/certificate"
)

// canaries are secrets of every sort that a client of the API may send, by what they
// are.
func canaries(t testing.TB, h *home) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, n := range []control.NewKey{
		{Kind: "secret", Environment: "live"}, {Kind: "secret", Environment: "test"},
		{Kind: "publishable", Environment: "live"}, {Kind: "restricted", Environment: "live", Scopes: []string{"payments:read"}},
	} {
		_, out[n.Kind+" "+n.Environment] = h.create("vinr", n)
	}
	id, revoked := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	if _, err := h.bundle("vinr").Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	out["revoked"] = revoked
	other := func(prefix, environment string) string {
		secret, err := credential.Generate(prefix, environment)
		if err != nil {
			t.Fatal(err)
		}
		return secret.Reveal()
	}
	out["unknown"], out["another API's"] = other("sk", "live"), other("vk", "sandbox")
	bad := other("rk", "test")
	out["without its end"] = bad[:len(bad)-3]
	private, _, err := note.GenerateKey(nil, "canary")
	if err != nil {
		t.Fatal(err)
	}
	out["private key"] = private
	return out
}

// The logs that a Caddyfile can ask for, in every format and at the lowest level; each
// {dir}/*.log gets lines about requests.
const everyLog = `
	debug
	metrics
	servers {
		log_credentials
		trace
	}
	log default {
		output file {dir}/default.log
		format console
		level DEBUG
	}
	log filtered {
		output file {dir}/filtered.log
		format filter {
			wrap console
			request>remote_ip ip_mask 16 32
			request>headers>Cookie cookie {
				hash session
			}
		}
		level DEBUG
	}
	log appended {
		output file {dir}/appended.log
		format append {
			wrap json
			machine {env.HOME}
		}
		level DEBUG
	}
	log errors {
		output file {dir}/errors.log
		include http.log.error
	}
	log sampled {
		output stdout
		format json
		level DEBUG
		sampling {
			first 1000000
		}
	}
`

const everySite = `
	log {
		hostnames api.vinr.com
		output file {dir}/site.log
	}
	log {
		output file {dir}/second.log
		format console
		level DEBUG
	}
	@odd expression header({'X-Api-Key': '*'}) || path('*_live_*')
	log_append @odd seen {http.request.header.X-Api-Key}
	log_append target {http.request.orig_uri}
	handle_errors {
		respond "{err.status_code}"
	}
	request_header X-Seen {http.request.header.X-Api-Key}
`

// R74: nothing that the real Caddy writes holds an API key or a private key that a
// client has sent, wherever it was sent and whatever came of the request: with README's
// Caddyfile, with every log that can be asked for, and without a bundle. Where
// log_redaction is off, the logs hold them: the search finds what is there.
func TestCanary(t *testing.T) {
	for name, tt := range map[string]struct {
		globals, site, bundle string // bundle is in place of the bundle's file
		logs                  []string
		leaks                 bool
	}{
		"as in README": {logs: []string{"stderr"}},
		"every log": {globals: everyLog, site: everySite,
			logs: []string{"stdout", "default.log", "filtered.log", "appended.log", "errors.log", "site.log", "second.log"}},
		"no bundle":     {globals: everyLog, site: everySite, bundle: "/nonexistent", logs: []string{"stdout", "filtered.log", "site.log"}},
		"redaction off": {globals: everyLog, site: everySite, leaks: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHome(t, "vinr")
			secrets := canaries(t, h)
			c := newProcess(t)
			bundle := h.bundle("vinr")
			file, off := bundle.File(), ""
			if tt.bundle != "" {
				file = tt.bundle
			}
			if tt.leaks {
				off = "log_redaction off"
			}
			c.start(fmt.Sprintf(`{
	admin %s
	http_port %s
	https_port %s
	default_bind 127.0.0.1
	skip_install_trust
	%s
	keystile {
		bundle vinr {
			file        %s
			signer_file %s
		}
		%s
	}
}
(edge) {
	%s
	keystile vinr
	reverse_proxy %s
}
http:// {
	import edge
}
https:// {
	tls %s/cert.pem %[10]s/key.pem
	import edge
}
`, c.admin, port(c.http), port(c.https), tt.globals, file, bundle.TrustFile(), off, tt.site, c.upstream.Listener.Addr(), c.certificates))
			all := slices.Collect(maps.Values(secrets))
			if tt.leaks {
				all = []string{secrets["secret live"]}
			}
			servers := []canary.Server{{Address: c.https, Name: "api.vinr.com"}, {Address: c.http}}
			if err := canary.Send(servers, "api.vinr.com", "/v1/payments", all...); err != nil {
				t.Fatal(err)
			}
			c.upstream.Close() // and now all that goes on is a 502
			if err := canary.Send(servers, "api.vinr.com", "/v1/payments", secrets["secret live"]); err != nil {
				t.Fatal(err)
			}
			c.asked("/config/")
			c.asked("/metrics")
			c.stop()

			found := canary.Look(all, c.stdout.String())
			found = append(found, canary.Look(all, c.stderr.String())...)
			inFiles, err := canary.LookInFiles(all, c.dir)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, inFiles...)
			if tt.leaks {
				if len(found) == 0 {
					t.Error("no log holds a secret without redaction: the search finds nothing")
				}
				return
			}
			for i, f := range found {
				if t.Errorf("%s", f); i == 5 {
					t.Fatalf("and %d more", len(found)-i-1)
				}
			}
			for _, log := range tt.logs {
				text := map[string]string{"stdout": c.stdout.String(), "stderr": c.stderr.String()}[log]
				if raw, err := os.ReadFile(filepath.Join(c.dir, log)); err == nil {
					text = string(raw)
				}
				if n := strings.Count(text, "REDACTED"); n < 10 || !strings.Contains(text, "/v1/payments") {
					t.Errorf("%s: %d secrets were taken out, of what should be there: %.2000s", log, n, text)
				}
			}
		})
	}
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// process is the real Caddy, with an upstream that tells more than it should.
type process struct {
	t                  testing.TB
	dir, certificates  string // dir is for all that Caddy writes
	http, https, admin string
	upstream           *httptest.Server
	cmd                *exec.Cmd
	exited             chan error
	stdout, stderr     written
}

// written is what a process has written so far.
type written struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func newProcess(t testing.TB) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), certificates: t.TempDir(), exited: make(chan error, 1)}
	if err := certificate.Write(p.certificates); err != nil {
		t.Fatal(err)
	}
	for _, to := range []*string{&p.http, &p.https, &p.admin} {
		var err error
		if *to, err = address.Free(); err != nil {
			t.Fatal(err)
		}
	}
	p.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Location", "/next?key="+string(body))
		w.Header().Set("Set-Cookie", "key="+string(body))
		w.Header().Set("X-Seen", r.Header.Get("X-Seen")+string(body))
	}))
	t.Cleanup(p.upstream.Close)
	return p
}

// start runs Caddy with a Caddyfile, in which {dir} is the folder for its logs, until it
// listens.
func (p *process) start(caddyfile string) {
	p.t.Helper()
	binary, err := filepath.Abs("../bin/caddy")
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		p.t.Fatalf("%v: make it with `make build`", err)
	}
	config := filepath.Join(p.t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(caddyfile, "{dir}", p.dir)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(binary, "run", "--config", config)
	p.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+p.dir+"/data", "XDG_CONFIG_HOME="+p.dir+"/config")
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	p.t.Cleanup(func() { p.cmd.Process.Kill() })
	for _, address := range []string{p.http, p.https, p.admin} {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if conn, err := net.Dial("tcp", address); err == nil {
				conn.Close()
				break
			}
			select {
			case err := <-p.exited:
				p.t.Fatalf("Caddy ended: %v\n%s", err, p.stderr.String())
			default:
			}
			if time.Now().After(deadline) {
				p.t.Fatalf("Caddy does not listen at %s\n%s", address, p.stderr.String())
			}
		}
	}
}

// asked keeps what Caddy's admin endpoint answers beside all else that it writes.
func (p *process) asked(path string) {
	p.t.Helper()
	answer, err := http.Get("http://" + p.admin + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatal(path, answer.Status, err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, strings.ReplaceAll(path, "/", "_")), body, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends Caddy and waits for its last line.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("Caddy does not end\n%s", p.stderr.String())
	}
}
