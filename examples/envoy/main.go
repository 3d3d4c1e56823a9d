// Command envoy runs the example beside it: an Envoy with Keystile, a web server
// that serves its bundle, and an API behind it. `make run-envoy` builds what it
// needs.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies"
)

func main() {
	listed := flag.String("ports", defaultPorts, "ports of HTTPS, of plain HTTP and of Envoy's admin endpoint")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := takePorts(*listed)
	if err == nil {
		dir := "envoy"
		if *listed != defaultPorts {
			dir += "-" + strconv.Itoa(p.https)
		}
		err = run(ctx, filepath.Join(envoy.Root(), "var", dir), p, os.Stderr, func(text string) { fmt.Print(text) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "envoy:", err)
		os.Exit(1)
	}
}

// text is what there is to try, with a key: a line for each, below its status.
const text = `Envoy with Keystile, in front of an API of one line.

# 200: the API learns who calls
curl -ik --resolve api.localhost:%[2]d:127.0.0.1 -H 'Authorization: Bearer %[1]s' https://api.localhost:%[2]d/x

# 401: another key
curl -ik --resolve api.localhost:%[2]d:127.0.0.1 -H 'Authorization: Bearer sk_live_other' https://api.localhost:%[2]d/x

# 403: plain HTTP
curl -i --resolve api.localhost:%[3]d:127.0.0.1 -H 'Authorization: Bearer %[1]s' http://api.localhost:%[3]d/x

# 200: the bundle is there
curl -i http://127.0.0.1:%[3]d/keystile/ready

# 200: what has been counted, for Prometheus
curl -i http://127.0.0.1:%[4]d/stats/prometheus?filter=keystile

Ctrl-C ends it.
`

// run runs the example in a folder until ctx ends, and gives started what there is to
// try. log gets what Envoy logs.
func run(ctx context.Context, dir string, p ports, log io.Writer, started func(text string)) error {
	dir, err := filepath.Abs(dir)
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
	host := fmt.Sprintf("api.localhost:%d", p.https)
	b, err := home.Init(ctx, control.NewBundle{
		Name: "shop", Audience: "default", Policy: document, File: "default/policy.yaml",
		Hosts: map[string][]string{"live": {host}, "test": {host}}, Directory: filepath.Join(dir, "bundles"),
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
	bundles, err := serve(http.FileServer(http.Dir(b.Directory)))
	if err != nil {
		return err
	}
	defer bundles.Close()
	api, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %s\n", r.Method, r.URL.Path, r.Header.Get("Keystile-Key-Id"))
	}))
	if err != nil {
		return err
	}
	defer api.Close()
	config := filepath.Join(dir, "envoy.yaml")
	if err := fill(config, map[string]string{"DIR": dir, "SIGNER": b.Signers[0], "STANDBY": b.Signers[1]}, map[int]int{
		10443: p.https, 10080: p.http, 10002: p.admin, 10000: port(api), 10001: port(bundles),
	}); err != nil {
		return err
	}
	process, err := start(ctx, config, p, log)
	if err != nil {
		return err
	}
	started(fmt.Sprintf(text, key.Reveal(), p.https, p.http, p.admin))
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

// start runs Envoy until it is ready. It shares no port, so that whoever answers is it.
func start(ctx context.Context, config string, p ports, log io.Writer) (<-chan error, error) {
	binary, err := envoy.Binary()
	if err != nil {
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
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		select {
		case err := <-exited:
			return nil, fmt.Errorf("envoy ended: %w", err)
		default:
		}
		err := ready(p)
		if err == nil {
			return exited, nil
		}
		if time.Since(begin) > startWait {
			process.Cancel()
			<-exited
			return nil, fmt.Errorf("envoy is not ready after %v: %w", startWait, err)
		}
	}
}

// startWait is how long Envoy may take: it compiles the filter for each worker.
const startWait = 3 * time.Minute

// ready says why Envoy does not answer yet at one of its ports.
func ready(p ports) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // it has a certificate of today
	}}
	for _, url := range []string{
		fmt.Sprintf("http://127.0.0.1:%d/keystile/ready", p.http),
		fmt.Sprintf("https://127.0.0.1:%d/keystile/ready", p.https),
		fmt.Sprintf("http://127.0.0.1:%d/ready", p.admin),
	} {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
	}
	return nil
}

// fill writes the configuration beside this file with each ${NAME} replaced, and each
// port by the one that is used.
func fill(to string, values map[string]string, ports map[int]int) error {
	raw, err := os.ReadFile(filepath.Join(envoy.Root(), "examples/envoy/envoy.yaml"))
	if err != nil {
		return err
	}
	if values["WASM"], err = envoy.Module(); err != nil {
		return err
	}
	filled := os.Expand(string(raw), func(name string) string { return values[name] })
	filled = regexp.MustCompile(`port_value: \d+`).ReplaceAllStringFunc(filled, func(was string) string {
		var port int
		fmt.Sscanf(was, "port_value: %d", &port)
		return fmt.Sprintf("port_value: %d", ports[port])
	})
	return os.WriteFile(to, []byte(filled), 0o600)
}

// serve serves on a port of the system's choice.
func serve(h http.Handler) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go http.Serve(l, h)
	return l, nil
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// ports are those that Envoy listens at.
type ports struct{ https, http, admin int }

const defaultPorts = "10443,10080,10002"

const choose = "stop what listens there, or choose other ports, as in `make run-envoy PORTS=11443,11080,11002` (HTTPS, HTTP, admin)"

// takePorts takes ports as they are listed, for as long as the process runs.
func takePorts(listed string) (p ports, err error) {
	err = address.TakeListed(listed, defaultPorts, choose, &p.https, &p.http, &p.admin)
	return p, err
}
