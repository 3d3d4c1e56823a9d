// Command caddy compares what Caddy spends on a request over HTTPS: bare, with
// basic_auth, with forward_auth and with keystile, in one process, in rounds
// that alternate between them.
//
// It measures bin/caddy's CPU time per request, goes on until the 95 % interval
// of the paired difference keystile − basic_auth has a half-width below 0.5 µs or
// ten minutes are over, and prints what it found. Absolute figures are those of
// this machine and this moment; the differences are what counts.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/policies"
)

const (
	connections = 8
	perRound    = 4000 // requests per site and round
	keyCount    = 200
	target      = 0.5e-6 // half-width, seconds
	minRounds   = 10
)

// sites are the handlers compared; each is a host.
var sites = []string{"respond", "basic_auth", "forward_auth", "keystile"}

var caddyfile = template.Must(template.New("").Parse(`{
	http_port {{.HTTP}}
	https_port {{.HTTPS}}
	default_bind 127.0.0.1
	admin off
	skip_install_trust
	local_certs
	storage file_system {{.Dir}}/storage
	auto_https disable_redirects
	log default {
		output discard
	}
	keystile {
		bundle vinr {
			file {{.File}}
			signer_file {{.SignerFile}}
			state {{.Dir}}/state
		}
	}
}
https://respond.test {
	respond ok
}
https://basic_auth.test {
	basic_auth {
		user {{.Hash}}
	}
	respond ok
}
https://forward_auth.test {
	forward_auth {{.Auth}} {
		uri /auth
		copy_headers X-User
	}
	respond ok
}
https://keystile.test {
	keystile vinr
	respond ok
}
`))

func main() {
	limit := flag.Duration("limit", 10*time.Minute, "stop after this time at the latest")
	flag.Parse()
	if err := run(*limit); err != nil {
		fmt.Fprintln(os.Stderr, "caddy:", err)
		os.Exit(1)
	}
}

func run(limit time.Duration) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keys, b, err := makeKeys(dir)
	if err != nil {
		return err
	}
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User", "user")
	}))
	defer auth.Close()
	https, process, err := startCaddy(dir, b, auth.Listener.Addr().String())
	if err != nil {
		return err
	}
	defer func() {
		process.Process.Signal(syscall.SIGTERM)
		process.Wait()
	}()
	load := make(map[string]*load)
	for _, site := range sites {
		if load[site], err = newLoad(https, site, keys); err != nil {
			return fmt.Errorf("%s: %w", site, err)
		}
		defer load[site].close()
	}
	return measure(process.Process.Pid, load, limit)
}

func makeKeys(dir string) ([]string, *control.Bundle, error) {
	h, err := control.Open(filepath.Join(dir, "home"))
	if err != nil {
		return nil, nil, err
	}
	defer h.Close()
	document, err := policies.Policy("vinr")
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	b, err := h.Init(ctx, control.NewBundle{
		Name: "vinr", Audience: bundle.DefaultAudience, Policy: document, File: "vinr", Hosts: map[string][]string{"live": {"keystile.test"}, "test": {"sandbox.test"}},
	})
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for range keyCount {
		_, secret, err := b.Keyring().Create(ctx, control.NewKey{Kind: "restricted", Environment: "live", Tenant: "acct_1", Scopes: []string{"payments:read", "refunds:read", "payouts:write"}})
		if err != nil {
			return nil, nil, err
		}
		keys = append(keys, secret.Reveal())
	}
	return keys, b, nil
}

func startCaddy(dir string, b *control.Bundle, auth string) (https string, process *exec.Cmd, err error) {
	var ports []string
	for range 2 {
		free, err := address.Free()
		if err != nil {
			return "", nil, err
		}
		_, port, _ := net.SplitHostPort(free)
		ports = append(ports, port)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), 10)
	if err != nil {
		return "", nil, err
	}
	config := filepath.Join(dir, "Caddyfile")
	f, err := os.Create(config)
	if err != nil {
		return "", nil, err
	}
	err = caddyfile.Execute(f, map[string]string{
		"HTTP": ports[0], "HTTPS": ports[1], "Dir": dir, "File": b.File(), "SignerFile": b.TrustFile(), "Hash": string(hash), "Auth": auth,
	})
	if err := errors.Join(err, f.Close()); err != nil {
		return "", nil, err
	}
	process = exec.Command("bin/caddy", "run", "--config", config, "--adapter", "caddyfile")
	process.Stderr = os.Stderr
	process.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	return "127.0.0.1:" + ports[1], process, process.Start()
}

// load sends requests to one site over connections of its own.
type load struct {
	conns    []net.Conn
	requests [][]byte
	length   int // of each answer
}

func newLoad(address, site string, keys []string) (*load, error) {
	l := &load{}
	for i := range keyCount {
		header := ""
		switch site {
		case "basic_auth":
			header = "Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n" // user:password
		case "keystile":
			header = "X-Api-Key: " + keys[i] + "\r\n"
		}
		l.requests = append(l.requests, []byte("GET /v1/payments/pay_1234567890 HTTP/1.1\r\nHost: "+site+".test\r\nUser-Agent: bench\r\nAccept: */*\r\n"+header+"\r\n"))
	}
	for range connections {
		var conn *tls.Conn
		var err error
		for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			conn, err = tls.Dial("tcp", address, &tls.Config{ServerName: site + ".test", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			return nil, err
		}
		l.conns = append(l.conns, conn)
	}
	// All answers are alike, so that a client that counts bytes costs least.
	if _, err := l.conns[0].Write(l.requests[0]); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n := 0
	for !strings.HasSuffix(string(buf[:n]), "\r\n\r\nok") {
		m, err := l.conns[0].Read(buf[n:])
		if err != nil {
			return nil, fmt.Errorf("%w after %q", err, buf[:n])
		}
		if n += m; !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
			return nil, fmt.Errorf("answer %q", buf[:n])
		}
	}
	l.length = n
	return l, nil
}

func (l *load) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// send sends n requests in all.
func (l *load) send(n int) error {
	var group sync.WaitGroup
	failed := make(chan error, len(l.conns))
	for i, conn := range l.conns {
		group.Go(func() {
			buf := make([]byte, l.length)
			for j := range n / len(l.conns) {
				if _, err := conn.Write(l.requests[(i*31+j)%len(l.requests)]); err != nil {
					failed <- err
					return
				}
				if _, err := io.ReadFull(conn, buf); err != nil {
					failed <- err
					return
				}
				if !strings.HasPrefix(string(buf), "HTTP/1.1 200") || !strings.HasSuffix(string(buf), "ok") {
					failed <- fmt.Errorf("answer %q", buf)
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// cpu is the CPU time that the process's threads have used.
func cpu(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no thread of process %d", pid)
	}
	var sum time.Duration
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(raw))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

func measure(pid int, load map[string]*load, limit time.Duration) error {
	one := func(site string) (float64, error) {
		before, err := cpu(pid)
		if err != nil {
			return 0, err
		}
		if err := load[site].send(perRound); err != nil {
			return 0, fmt.Errorf("%s: %w", site, err)
		}
		after, err := cpu(pid)
		return (after - before).Seconds() / perRound, err
	}
	for _, site := range sites { // warm up
		if _, err := one(site); err != nil {
			return err
		}
	}
	sum, rounds := make(map[string]float64), 0
	var diffs []float64
	begin := time.Now()
	for {
		got := make(map[string]float64)
		for _, i := range rand.Perm(len(sites)) {
			v, err := one(sites[i])
			if err != nil {
				return err
			}
			got[sites[i]] = v
			sum[sites[i]] += v
		}
		rounds++
		diffs = append(diffs, got["keystile"]-got["basic_auth"])
		mean, half := interval(diffs)
		if rounds >= minRounds && half < target || time.Since(begin) > limit {
			fmt.Printf("Caddy over HTTPS, CPU time per request, mean of %d rounds of %d requests:\n", rounds, perRound)
			for _, site := range sites {
				fmt.Printf("  %-13s %6.1f µs  (respond %+.1f)\n", site, sum[site]/float64(rounds)*1e6, (sum[site]-sum["respond"])/float64(rounds)*1e6)
			}
			fmt.Printf("keystile − basic_auth: %.2f µs, 95 %% interval %.2f to %.2f µs\n", mean*1e6, (mean-half)*1e6, (mean+half)*1e6)
			return nil
		}
	}
}

// interval is the mean of the values and the half-width of its 95 % interval.
func interval(values []float64) (mean, half float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	var squares float64
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	if n < 2 {
		return mean, math.Inf(1)
	}
	return mean, 1.96 * math.Sqrt(squares/(n-1)/n)
}
