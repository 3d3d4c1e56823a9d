// Package caddymodule is Keystile for Caddy: the app `keystile`, which holds
// bundles, and the handler `http.handlers.keystile`, which decides requests by
// one of them.
//
// A Caddyfile names the bundles in its global options and protects a site with
// one line:
//
//	{
//		keystile {
//			bundle vinr {
//				file /var/lib/keystile/vinr/vinr.keystile
//				signer keystile-vinr+5d1b1d6d+AUJ2…
//			}
//		}
//	}
//	http://api.vinr.com, https://api.vinr.com {
//		keystile vinr
//		reverse_proxy localhost:9000
//	}
//
// The HTTP port is named beside the HTTPS one so that Caddy does not redirect a
// key that was sent in clear: Keystile refuses it. All decisions are core's;
// this package translates.
package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.RegisterModule(Handler{})
}

// App holds the bundles that `keystile` handlers decide by. Each bundle is read
// from a file, verified, and replaced within a second when the file changes; a
// bad file leaves the last good bundle in use until that one expires.
type App struct {
	// The bundles, by the name that handlers use. A bundle's signed name must be
	// the same.
	Bundles map[string]*Bundle `json:"bundles,omitempty"`

	// With `off`, API keys are not taken out of Caddy's logs. By default they are,
	// from every log at every level: the values of the headers in which the policies
	// accept keys and customer tokens, and whatever looks like a key, in plain or
	// encoded; also private keys of signers and publishers.
	LogRedaction string `json:"log_redaction,omitempty"`

	guards map[string]*guard
	keys   []string // in the pool, taken by this instance

	http   *httpConfig                // around the handlers, once one has been provisioned
	looked map[*caddyhttp.Server]bool // through
	sites  map[string][]site          // of each bundle
	warned map[string]bool            // what has been
}

// Bundle says where a bundle comes from and what of it is believed.
type Bundle struct {
	// The packed file, or the directory that holds the bundle node by node. A
	// relative path is taken from the working directory. Placeholders are
	// replaced once, at load.
	File string `json:"file,omitempty"`

	// The policy signers that are trusted, as verifier keys
	// (`name+hash+base64`). `caddy keystile init` prints two: the active one
	// and a standby. Placeholders are replaced once, so that `{file./path}`
	// reads one from a file.
	Signers []string `json:"signers,omitempty"`

	// A file with more policy signers, one on a line; lines that begin with #
	// are comments.
	SignerFile string `json:"signer_file,omitempty"`

	// How many of the trusted signers must have signed. Default: 1.
	Threshold int `json:"threshold,omitempty"`

	// The group of edges that this one belongs to. A bundle that was signed for
	// another audience is refused. Default: `default`.
	Audience string `json:"audience,omitempty"`

	// Where this edge remembers the highest bundle that it has accepted, so that
	// an older one is refused after a restart too; `off` where nothing can be
	// kept. Default: `keystile/<name>.state` in Caddy's data directory.
	State string `json:"state,omitempty"`

	// The lowest version of a bundle that is accepted, in Unix milliseconds, as
	// `caddy keystile bundle inspect` shows it: the bound against an older one
	// where no state is kept.
	MinVersion int64 `json:"min_version,omitempty"`

	// The lowest version of a policy note that is accepted.
	MinPolicyVersion int64 `json:"min_policy_version,omitempty"`

	// Deny everything once the bundle was signed longer ago than this, even if
	// it has not expired. It should be at least two renewals. Default: no bound but
	// the bundle's own expiry.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How far this clock and the publisher's may differ. Default: 1m.
	ClockSkew caddy.Duration `json:"clock_skew,omitempty"`

	// Bound of the cache of key records in bytes. Default: 64 MiB.
	RecordCache int64 `json:"record_cache,omitempty"`

	// Bound of the cache of tree nodes in bytes. Default: 64 MiB.
	NodeCache int64 `json:"node_cache,omitempty"`

	// Bound of the cache of verified customer tokens in bytes. Default: 8 MiB.
	TokenCache int64 `json:"token_cache,omitempty"`

	// Addresses or prefixes of proxies in front that end TLS. A request whose
	// socket peer is listed counts as HTTPS if its only X-Forwarded-Proto line
	// is `https` or `wss`. Leave it empty where Caddy ends TLS itself.
	TLSTerminators []string `json:"tls_terminators,omitempty"`
}

// RedactionOff is the value of `log_redaction` with which logs are left alone.
const RedactionOff = "off"

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "keystile", New: func() caddy.Module { return new(App) }}
}

// edges lives across reloads, by everything that is configured for a bundle: its
// name, its source, its trust and the rest. One that is configured otherwise is
// another edge, which begins with the state on disk; so a configuration that
// fails to load has changed nothing of the one in use.
var guards = caddy.NewUsagePool()

// Provision opens the bundles, and keeps secrets out of the logs before anything that
// comes of them is logged.
func (a *App) Provision(ctx caddy.Context) error {
	switch a.LogRedaction {
	case "":
		if err := redactLogs(ctx); err != nil {
			return fmt.Errorf("API keys cannot be kept out of the logs of this version of Caddy: %w: build Keystile with the version of Caddy that its xcaddy.txt names; or add `log_redaction off` to the global option keystile, and keep the headers and URLs of requests out of every log", err)
		}
	case RedactionOff:
	default:
		return fmt.Errorf("log_redaction %q: leave it out, or use %s", a.LogRedaction, RedactionOff)
	}
	a.guards = make(map[string]*guard)
	states := make(map[string]string) // whose they are
	for _, name := range slices.Sorted(maps.Keys(a.Bundles)) {
		b := a.Bundles[name]
		if b == nil {
			return fmt.Errorf("bundle %q is empty: give it a file and a signer", name)
		}
		c, err := b.resolve(name)
		if err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
		if other, taken := states[c.State]; taken && c.State != "" {
			return fmt.Errorf("bundle %q: state: bundle %q has %s too, and each would drop what the other remembers: give each its own", name, other, c.State)
		}
		states[c.State] = name
		id, err := json.Marshal(c)
		if err != nil {
			return err
		}
		value, _, err := guards.LoadOrNew(string(id), func() (caddy.Destructor, error) {
			return newGuard(c, ctx.Logger())
		})
		if err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
		a.keys = append(a.keys, string(id))
		a.guards[name] = value.(*guard)
		a.guards[name].setLogger(ctx.Logger())
	}
	registerMetrics(ctx.GetMetricsRegistry())
	return nil
}

// Start begins to watch the bundles, and to remember what was accepted.
func (a *App) Start() error {
	redacted.Store(a.LogRedaction != RedactionOff)
	for _, name := range slices.Sorted(maps.Keys(a.guards)) {
		a.guards[name].sites.Store(&siteList{a.sites[name]})
		if err := a.guards[name].begin(); err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
	}
	return nil
}

// Stop does nothing: see Cleanup.
func (a *App) Stop() error { return nil }

// Cleanup releases what this instance took, and no more: it also runs when
// Provision fails half-way.
func (a *App) Cleanup() error {
	var failed error
	for _, k := range a.keys {
		_, err := guards.Delete(k)
		failed = errors.Join(failed, err)
	}
	return failed
}

// edge returns the named bundle's.
func (a *App) guard(name string) (*guard, error) {
	if e, ok := a.guards[name]; ok {
		return e, nil
	}
	known := slices.Sorted(maps.Keys(a.guards))
	if len(known) == 0 {
		return nil, fmt.Errorf("bundle %q is not configured: add `keystile { bundle %s { … } }` to the global options", name, name)
	}
	return nil, fmt.Errorf("bundle %q is not configured: the global options have %q", name, known)
}

var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
