// Command demo is what `make run` starts: it makes demo bundles and keys on
// first use, signs them anew at start and every hour, runs bin/caddy with the
// Caddyfile of this repository, and prints requests to try with the answer that
// each will give.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keystile/keystile/caddymodule"
	"github.com/keystile/keystile/caddymodule/control"
	"github.com/keystile/keystile/policies"
)

const (
	home      = "var/demo"
	keysFile  = home + "/demo-keys.json"
	dataDir   = home + "/caddy"
	rootCert  = dataDir + "/caddy/pki/authorities/local/root.crt"
	httpsPort = ":8443"
	httpPort  = ":8080"
	heartbeat = time.Hour
)

// hosts are the demo's names for the policies' hosts. Browsers and curl resolve
// all of .localhost to this machine.
var hosts = map[string]map[string][]string{
	"vinr":       {"live": {"api.vinr.localhost" + httpsPort}, "test": {"sandbox.api.vinr.localhost" + httpsPort}},
	"vesuviopay": {"": {"api.vesuviopay.localhost" + httpsPort}},
	"vinfer":     {"": {"api.vinfer.localhost" + httpsPort}},
	"enterprise": {"live": {"api.enterprise.localhost" + httpsPort}, "test": {"sandbox.enterprise.localhost" + httpsPort}},
	"example":    {"": {"api.example.localhost" + httpsPort}},
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	h, err := control.Open(home)
	if err != nil {
		return err
	}
	defer h.Close()
	secrets, err := prepare(ctx, h)
	if err != nil {
		return err
	}
	token, err := customer(ctx, h)
	if err != nil {
		return err
	}
	data, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	caddy := exec.CommandContext(ctx, "bin/caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile")
	caddy.Env = append(os.Environ(), "KEYSTILE_HOME="+home, "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data)
	caddy.Cancel = func() error { return caddy.Process.Signal(syscall.SIGTERM) }
	caddy.WaitDelay = 5 * time.Second
	log, err := os.Create(filepath.Join(home, "caddy.log"))
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
	if err := ready(ctx, exited); err != nil {
		return fmt.Errorf("%w: see %s", err, log.Name())
	}
	print(secrets, token)
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case err := <-exited:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("caddy ended (%v): see %s", err, log.Name())
		case <-ticker.C:
			if err := renew(ctx, h); err != nil {
				return err
			}
		}
	}
}

// prepare makes what is missing, and signs what is there anew.
func prepare(ctx context.Context, h *control.Home) (map[string]map[string]string, error) {
	secrets := make(map[string]map[string]string)
	raw, err := os.ReadFile(keysFile)
	if err == nil {
		if err := json.Unmarshal(raw, &secrets); err != nil {
			return nil, fmt.Errorf("%s: %w: remove %s to begin anew", keysFile, err, home)
		}
		return secrets, renew(ctx, h)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for name := range hosts {
		document, err := policies.Policy(name)
		if err != nil {
			return nil, err
		}
		b, err := h.Bundle(name)
		if err != nil {
			if b, err = h.Init(ctx, control.NewBundle{
				Name: name, Audience: caddymodule.DefaultAudience, Policy: document, File: name + "/policy.yaml", Hosts: hosts[name],
			}); err != nil {
				return nil, err
			}
		}
		secrets[name] = make(map[string]string)
		for label, n := range keys[name] {
			n.Name = "demo " + label
			_, secret, err := b.Create(ctx, n)
			if err != nil {
				return nil, err
			}
			secrets[name][label] = secret.Reveal()
		}
	}
	if raw, err = json.MarshalIndent(secrets, "", "  "); err != nil {
		return nil, err
	}
	return secrets, os.WriteFile(keysFile, raw, 0o600)
}

func renew(ctx context.Context, h *control.Home) error {
	for name := range hosts {
		b, err := h.Bundle(name)
		if err != nil {
			return err
		}
		if err := b.Build(ctx); err != nil {
			return err
		}
	}
	return nil
}

// customer makes a customer token that outlives a day of trying things.
func customer(ctx context.Context, h *control.Home) (string, error) {
	b, err := h.Bundle("vesuviopay")
	if err != nil {
		return "", err
	}
	return b.DemoToken(ctx, "alice", map[string]string{"store_id": "store_1", "env": "test"}, 24*time.Hour)
}

// ready waits until Caddy answers on both ports.
func ready(ctx context.Context, exited chan error) error {
	deadline := time.After(30 * time.Second)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-exited:
			return fmt.Errorf("caddy ended (%v)", err)
		case <-deadline:
			return errors.New("caddy does not answer")
		case <-time.After(100 * time.Millisecond):
		}
		plain, err := net.DialTimeout("tcp", "127.0.0.1"+httpPort, time.Second)
		if err != nil {
			continue
		}
		plain.Close()
		// Only whether it answers is asked here, with a certificate made already.
		secure, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", "127.0.0.1"+httpsPort,
			&tls.Config{ServerName: "api.example.localhost", InsecureSkipVerify: true})
		if err == nil {
			secure.Close()
			return nil
		}
	}
}

func print(secrets map[string]map[string]string, token string) {
	var b strings.Builder
	line := func(answer, args string) {
		fmt.Fprintf(&b, "# %s\ncurl -i --cacert %s %s\n\n", answer, rootCert, args)
	}
	b.WriteString("\nKeystile is running in front of five APIs. Try these:\n\n")
	vinr := secrets["vinr"]
	line("vinr, secret key: 200, and the upstream learns who calls",
		fmt.Sprintf("-H 'X-Api-Key: %s' https://api.vinr.localhost%s/v1/payments", vinr["secret"], httpsPort))
	line("vinr, the same over plain HTTP: 403, and no redirect",
		fmt.Sprintf("-H 'X-Api-Key: %s' http://api.vinr.localhost%s/v1/payments", vinr["secret"], httpPort))
	line("vinr, restricted key with refunds:read: 200 for reading",
		fmt.Sprintf("-H 'Authorization: Bearer %s' https://api.vinr.localhost%s/v1/refunds", vinr["reporting"], httpsPort))
	line("vinr, the same key writing: 403",
		fmt.Sprintf("-X POST -H 'Authorization: Bearer %s' https://api.vinr.localhost%s/v1/refunds", vinr["reporting"], httpsPort))
	line("vinr, publishable key creating a client session: 200",
		fmt.Sprintf("-X POST -H 'X-Api-Key: %s' https://api.vinr.localhost%s/v1/client_sessions", vinr["publishable"], httpsPort))
	line("vinr, test key on the live host: 401",
		fmt.Sprintf("-H 'X-Api-Key: %s' https://api.vinr.localhost%s/v1/payments", vinr["test"], httpsPort))
	line("vinr, test key on the sandbox: 200",
		fmt.Sprintf("-H 'X-Api-Key: %s' https://sandbox.api.vinr.localhost%s/v1/payments", vinr["test"], httpsPort))
	line("vesuviopay, cart without a customer: 401 INVALID_TOKEN",
		fmt.Sprintf("-H 'X-API-Key: %s' https://api.vesuviopay.localhost%s/api/v1/sdk/cart/store_1", secrets["vesuviopay"]["publishable"], httpsPort))
	line("vesuviopay, another store: 403 NO_STORE_ACCESS",
		fmt.Sprintf("-H 'X-API-Key: %s' https://api.vesuviopay.localhost%s/api/v1/sdk/stores/store_2/config", secrets["vesuviopay"]["publishable"], httpsPort))
	line("vesuviopay, cart with key and customer token: 200",
		fmt.Sprintf("-H 'X-API-Key: %s' -H 'Authorization: Bearer %s' https://api.vesuviopay.localhost%s/api/v1/sdk/cart/store_1", secrets["vesuviopay"]["publishable"], token, httpsPort))
	line("vinfer, read-only key creating a campaign: 403 with required_scope read-write",
		fmt.Sprintf("-X POST -H 'Authorization: Bearer %s' https://api.vinfer.localhost%s/v1/campaigns", secrets["vinfer"]["reader"], httpsPort))
	line("enterprise, invoices:read: 200",
		fmt.Sprintf("-H 'Authorization: Bearer %s' https://api.enterprise.localhost%s/v1/invoices", secrets["enterprise"]["reporting"], httpsPort))
	line("example, key limited to one web shop, from there: 200; leave the Origin away: 403",
		fmt.Sprintf("-H 'Authorization: Bearer %s' -H 'Origin: https://shop.example.com' https://api.example.localhost%s/v1/users/usr_123", secrets["example"]["shop"], httpsPort))
	fmt.Fprintf(&b, "Keys: bin/caddy keystile keys list --home %s --bundle vinr\nLog:  %s/caddy.log   Stop: Ctrl-C\n", home, home)
	fmt.Print(b.String())
}
