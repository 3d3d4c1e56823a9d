// Command demo is what `make run` starts: it makes demo bundles and keys on
// first use, signs them anew at start and every hour, runs bin/caddy with the
// Caddyfile of this repository, and prints requests to try with the answer that
// each will give.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/demo/token"
	"github.com/keystile/keystile/policies"
)

const renewal = time.Hour

// demo is one folder with all that the demo makes.
type demo struct {
	home    string
	ports   ports
	control *control.Home
	secrets map[string]map[string]string // API keys by bundle and name
	token   string                       // of the customer
}

func (d *demo) keysFile() string { return filepath.Join(d.home, "demo-keys.json") }
func (d *demo) dataDir() string  { return filepath.Join(d.home, "caddy") }
func (d *demo) rootCert() string {
	return filepath.Join(d.dataDir(), "caddy/pki/authorities/local/root.crt")
}

// hosts are the demo's names for the policies' hosts, without their port. Browsers and
// curl resolve all of .localhost to this machine.
var hosts = map[string]map[string]string{
	"vinr":       {"live": "api.vinr.localhost", "test": "sandbox.api.vinr.localhost"},
	"vesuviopay": {"": "api.vesuviopay.localhost"},
	"vinfer":     {"": "api.vinfer.localhost"},
	"enterprise": {"live": "api.enterprise.localhost", "test": "sandbox.enterprise.localhost"},
	"example":    {"": "api.example.localhost"},
}

// hostsOf are a bundle's hosts, by environment.
func (d *demo) hostsOf(name string) map[string][]string {
	all := make(map[string][]string)
	for env, host := range hosts[name] {
		all[env] = []string{fmt.Sprintf("%s:%d", host, d.ports.https)}
	}
	return all
}

// keys are the demo's, by bundle and name.
var keys = map[string]map[string]control.NewKey{
	"vinr": {
		"secret":      {Kind: "secret", Environment: "live", Tenant: "acct_1"},
		"test":        {Kind: "secret", Environment: "test", Tenant: "acct_1"},
		"publishable": {Kind: "publishable", Environment: "live", Tenant: "acct_1"},
		"reporting":   {Kind: "restricted", Environment: "live", Tenant: "acct_1", Scopes: []string{"refunds:read", "payouts:read"}},
	},
	"vesuviopay": {"publishable": {Kind: "publishable", Environment: "test", Tenant: "store_1"}},
	"vinfer":     {"reader": {Kind: "api", Environment: "live", Tenant: "ws_1", Scopes: []string{"read-only"}}},
	"enterprise": {"reporting": {Kind: "secret", Environment: "live", Scopes: []string{"invoices:read", "payouts:read"}}},
	"example":    {"shop": {Kind: "secret", Environment: "live", Referrers: []string{"https://shop.example.com"}}},
}

func main() {
	listed := flag.String("ports", defaultPorts, "ports of HTTPS, of plain HTTP and of the API behind them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, *listed); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, listed string) error {
	p, err := takePorts(listed)
	if err != nil {
		return err
	}
	d := &demo{home: "var/demo", ports: p}
	if listed != defaultPorts {
		d.home += "-" + strconv.Itoa(p.https) // its bundles name the port
	}
	return d.run(ctx, func() { fmt.Print(d.text()) })
}

// run runs the demo until ctx ends, and calls started once requests are answered.
func (d *demo) run(ctx context.Context, started func()) error {
	var err error
	if d.control, err = control.Open(d.home); err != nil {
		return err
	}
	defer d.control.Close()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.customer(ctx); err != nil {
		return err
	}
	data, err := filepath.Abs(d.dataDir())
	if err != nil {
		return err
	}
	caddy := exec.CommandContext(ctx, "bin/caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile")
	nonce := rand.Text()
	caddy.Env = append(os.Environ(), "KEYSTILE_HOME="+d.home, "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data, "KEYSTILE_DEMO="+nonce)
	caddy.Env = append(caddy.Env, d.ports.environment()...)
	caddy.Cancel = func() error { return caddy.Process.Signal(syscall.SIGTERM) }
	caddy.WaitDelay = 5 * time.Second
	log, err := os.Create(filepath.Join(d.home, "caddy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	caddy.Stdout, caddy.Stderr = log, log
	if err := caddy.Start(); err != nil {
		return fmt.Errorf("%w: build it with `make build`", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- caddy.Wait() }()
	if err := d.ready(ctx, nonce, exited); err != nil {
		caddy.Cancel()
		<-exited
		return fmt.Errorf("%w: see %s", err, log.Name())
	}
	started()
	ticker := time.NewTicker(renewal)
	defer ticker.Stop()
	for {
		select {
		case err := <-exited:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("caddy ended (%v): see %s", err, log.Name())
		case <-ticker.C:
			if err := d.renew(ctx); err != nil {
				return err
			}
		}
	}
}

// prepare makes what is missing, and signs what is there anew.
func (d *demo) prepare(ctx context.Context) error {
	d.secrets = make(map[string]map[string]string)
	raw, err := os.ReadFile(d.keysFile())
	if err == nil {
		if err := json.Unmarshal(raw, &d.secrets); err != nil {
			return fmt.Errorf("%s: %w: remove %s to begin anew", d.keysFile(), err, d.home)
		}
		return d.renew(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name := range hosts {
		document, err := policies.Policy(name)
		if err != nil {
			return err
		}
		b, err := d.control.Bundle(name)
		if err != nil {
			if b, err = d.control.Init(ctx, control.NewBundle{
				Name: name, Audience: bundle.DefaultAudience, Policy: document, File: name + "/policy.yaml", Hosts: d.hostsOf(name),
			}); err != nil {
				return err
			}
		}
		d.secrets[name] = make(map[string]string)
		for label, n := range keys[name] {
			n.Name = "demo " + label
			_, secret, err := b.Keyring().Create(ctx, n)
			if err != nil {
				return err
			}
			d.secrets[name][label] = secret.Reveal()
		}
	}
	if raw, err = json.MarshalIndent(d.secrets, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(d.keysFile(), raw, 0o600)
}

func (d *demo) renew(ctx context.Context) error {
	for name := range hosts {
		b, err := d.control.Bundle(name)
		if err != nil {
			return err
		}
		if err := b.Publisher().Build(ctx); err != nil {
			return err
		}
	}
	return nil
}

// customer makes a customer token that outlives a day of trying things.
func (d *demo) customer(ctx context.Context) error {
	b, err := d.control.Bundle("vesuviopay")
	if err != nil {
		return err
	}
	if err := token.Trust(ctx, b); err != nil {
		return err
	}
	d.token, err = token.Make(b, "alice", map[string]string{"store_id": "store_1", "env": "test"}, 24*time.Hour)
	return err
}

// try is a request to try, with the status that it gets and why.
type try struct {
	status  int
	why     string
	command string
}

func (d *demo) tries() (out []try) {
	add := func(status int, why, format string, args ...any) {
		out = append(out, try{status, why, "curl -i --cacert " + d.rootCert() + " " + fmt.Sprintf(format, args...)})
	}
	secure := func(host, path string) string {
		return fmt.Sprintf("https://%s.localhost:%d%s", host, d.ports.https, path)
	}
	vinr, pay := d.secrets["vinr"], d.secrets["vesuviopay"]["publishable"]
	add(200, "vinr, secret key: the upstream learns who calls",
		"-H 'X-Api-Key: %s' %s", vinr["secret"], secure("api.vinr", "/v1/payments"))
	add(403, "vinr, the same over plain HTTP: refused, and no redirect",
		"-H 'X-Api-Key: %s' http://api.vinr.localhost:%d/v1/payments", vinr["secret"], d.ports.http)
	add(200, "vinr, restricted key with refunds:read, reading",
		"-H 'Authorization: Bearer %s' %s", vinr["reporting"], secure("api.vinr", "/v1/refunds"))
	add(403, "vinr, the same key, writing",
		"-X POST -H 'Authorization: Bearer %s' %s", vinr["reporting"], secure("api.vinr", "/v1/refunds"))
	add(200, "vinr, publishable key, creating a client session",
		"-X POST -H 'X-Api-Key: %s' %s", vinr["publishable"], secure("api.vinr", "/v1/client_sessions"))
	add(401, "vinr, test key on the live host",
		"-H 'X-Api-Key: %s' %s", vinr["test"], secure("api.vinr", "/v1/payments"))
	add(200, "vinr, test key on the sandbox",
		"-H 'X-Api-Key: %s' %s", vinr["test"], secure("sandbox.api.vinr", "/v1/payments"))
	add(401, "vesuviopay, cart without a customer: INVALID_TOKEN",
		"-H 'X-API-Key: %s' %s", pay, secure("api.vesuviopay", "/api/v1/sdk/cart/store_1"))
	add(403, "vesuviopay, another store: NO_STORE_ACCESS",
		"-H 'X-API-Key: %s' %s", pay, secure("api.vesuviopay", "/api/v1/sdk/stores/store_2/config"))
	add(200, "vesuviopay, cart with key and customer token",
		"-H 'X-API-Key: %s' -H 'Authorization: Bearer %s' %s", pay, d.token, secure("api.vesuviopay", "/api/v1/sdk/cart/store_1"))
	add(403, "vinfer, read-only key creating a campaign: required_scope read-write",
		"-X POST -H 'Authorization: Bearer %s' %s", d.secrets["vinfer"]["reader"], secure("api.vinfer", "/v1/campaigns"))
	add(200, "enterprise, invoices:read",
		"-H 'Authorization: Bearer %s' %s", d.secrets["enterprise"]["reporting"], secure("api.enterprise", "/v1/invoices"))
	shop := d.secrets["example"]["shop"]
	add(200, "example, key limited to one web shop, from there",
		"-H 'Authorization: Bearer %s' -H 'Origin: https://shop.example.com' %s", shop, secure("api.example", "/v1/users/usr_123"))
	add(403, "example, the same key from elsewhere",
		"-H 'Authorization: Bearer %s' %s", shop, secure("api.example", "/v1/users/usr_123"))
	return out
}

// text is what the demo prints once it runs.
func (d *demo) text() string {
	var b strings.Builder
	b.WriteString("\nKeystile is running in front of five APIs. Try these:\n\n")
	for _, t := range d.tries() {
		fmt.Fprintf(&b, "# %d: %s\n%s\n\n", t.status, t.why, t.command)
	}
	fmt.Fprintf(&b, "Keys: bin/caddy keystile keys list --home %s --bundle vinr\nLog:  %s/caddy.log   Stop: Ctrl-C\n", d.home, d.home)
	return b.String()
}
