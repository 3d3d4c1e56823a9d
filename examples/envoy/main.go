// Command envoy runs the example beside it: an Envoy with Keystile, a web server
// that serves its bundle, and an API behind it. `make run-envoy` builds what it
// needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stderr, func(text string) { fmt.Print(text) }); err != nil {
		fmt.Fprintln(os.Stderr, "envoy:", err)
		os.Exit(1)
	}
}

// text is what there is to try, with a key: a line for each, below its status.
const text = `Envoy with Keystile, in front of an API of one line.

# 200: the API learns who calls
curl -ik --resolve api.localhost:10443:127.0.0.1 -H 'Authorization: Bearer %s' https://api.localhost:10443/x

# 401: another key
curl -ik --resolve api.localhost:10443:127.0.0.1 -H 'Authorization: Bearer sk_live_other' https://api.localhost:10443/x

# 403: plain HTTP
curl -i --resolve api.localhost:10080:127.0.0.1 -H 'Authorization: Bearer %[1]s' http://api.localhost:10080/x

# 200: the bundle is there
curl -i http://127.0.0.1:10080/keystile/ready

# 200: what has been counted, for Prometheus
curl -i http://127.0.0.1:10002/stats/prometheus?filter=keystile

Ctrl-C ends it.
`

// run runs the example until ctx ends, and gives started what there is to try. log gets
// what Envoy logs.
func run(ctx context.Context, log io.Writer, started func(text string)) error {
	dir, err := filepath.Abs(filepath.Join(envoy.Root(), "var", "envoy"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	home, err := control.Open(filepath.Join(dir, "home"))
	if err != nil {
		return err
	}
	defer home.Close()
	document, err := policies.Policy("default")
	if err != nil {
		return err
	}
	b, err := home.Init(ctx, control.NewBundle{
		Name: "shop", Audience: "default", Policy: document, File: "default/policy.yaml",
		Hosts: map[string][]string{"live": {"api.localhost:10443"}, "test": {"api.localhost:10443"}}, Directory: filepath.Join(dir, "bundles"),
	})
	if err != nil {
		return err
	}
	_, key, err := b.Keyring().Create(ctx, control.NewKey{Name: "example", Kind: "secret", Environment: "live"})
	if err != nil {
		return err
	}
	if err := certificate.Write(dir); err != nil {
		return err
	}
	if err := serve("127.0.0.1:10001", http.FileServer(http.Dir(b.Directory))); err != nil {
		return err
	}
	if err := serve("127.0.0.1:10000", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %s\n", r.Method, r.URL.Path, r.Header.Get("Keystile-Key-Id"))
	})); err != nil {
		return err
	}
	process, err := start(ctx, dir, b.Signers, log)
	if err != nil {
		return err
	}
	started(fmt.Sprintf(text, key.Reveal()))
	renew := time.NewTicker(5 * time.Minute)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			<-process // it has logged its last
			return nil
		case err := <-process:
			return fmt.Errorf("envoy ended: %w", err)
		case <-renew.C:
			if err := b.Publisher().Build(ctx); err != nil {
				return err
			}
		}
	}
}

// start runs Envoy with the configuration beside this file, filled in.
func start(ctx context.Context, dir string, signers []string, log io.Writer) (<-chan error, error) {
	binary, err := envoy.Binary()
	if err != nil {
		return nil, err
	}
	module, err := envoy.Module()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "envoy.yaml")
	if err := fill(filepath.Join(envoy.Root(), "examples/envoy/envoy.yaml"), config, map[string]string{
		"DIR": dir, "WASM": module, "SIGNER": signers[0], "STANDBY": signers[1],
	}); err != nil {
		return nil, err
	}
	process := exec.CommandContext(ctx, binary, "-c", config, "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning", "--component-log-level", "wasm:info")
	process.Cancel = func() error { return process.Process.Signal(syscall.SIGTERM) }
	process.WaitDelay = 5 * time.Second
	process.Stdout, process.Stderr = os.Stdout, log
	if err := process.Start(); err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- process.Wait() }()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(100 * time.Millisecond) {
		select {
		case err := <-exited:
			return nil, fmt.Errorf("envoy ended: %w", err)
		default:
		}
		response, err := http.Get("http://127.0.0.1:10080/keystile/ready")
		if err != nil {
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return exited, nil
		}
	}
	return nil, errors.New("envoy is not ready after a minute")
}

// fill copies a file with each ${NAME} replaced.
func fill(from, to string, values map[string]string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	filled := os.Expand(string(raw), func(name string) string { return values[name] })
	return os.WriteFile(to, []byte(filled), 0o600)
}

func serve(address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go http.Serve(l, h)
	return nil
}
