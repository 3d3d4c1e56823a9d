package caddymodule

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Ready{})
	httpcaddyfile.RegisterHandlerDirective("keystile_ready", parseReady)
	// Before what redirects and rewrites, and long before `keystile`.
	httpcaddyfile.RegisterDirectiveOrder("keystile_ready", httpcaddyfile.Before, "redir")
}

// Ready answers load balancers and Kubernetes whether requests are decided: 200 while
// each bundle is in force, else 503 with a line for each that is not, and why. It
// answers every request that it gets, whatever the method, also over plain HTTP: give it
// a path of its own.
type Ready struct {
	// The names of the bundles, as in the `keystile` app. Default: all of them.
	Bundles []string `json:"bundles,omitempty"`

	guards []*guard
}

// CaddyModule returns the Caddy module information.
func (Ready) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keystile_ready", New: func() caddy.Module { return new(Ready) }}
}

// Provision finds the bundles.
func (h *Ready) Provision(ctx caddy.Context) error {
	app, err := ctx.App("keystile")
	if err != nil {
		return err
	}
	names := h.Bundles
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(app.(*App).guards))
	}
	if len(names) == 0 {
		names = []string{"<name>"} // whose error says what to add
	}
	for _, name := range names {
		g, err := app.(*App).guard(name)
		if err != nil {
			return err
		}
		h.guards = append(h.guards, g)
	}
	return nil
}

// ServeHTTP answers.
func (h *Ready) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	var why strings.Builder
	for _, g := range h.guards {
		if err := g.verifier.Status(); err != nil {
			why.WriteString(g.name + ": " + err.Error() + "\n")
		}
	}
	status, body := http.StatusOK, "ready\n"
	if why.Len() > 0 {
		status, body = http.StatusServiceUnavailable, why.String()
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err := io.WriteString(w, body)
	return err
}

func parseReady(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Ready)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	keystile_ready [<matcher>] [<bundle>...]
func (h *Ready) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	h.Bundles = d.RemainingArgs()
	if d.NextBlock(d.Nesting()) {
		return d.Err("keystile_ready takes names of bundles, and no block")
	}
	return nil
}

var (
	_ caddy.Provisioner           = (*Ready)(nil)
	_ caddyhttp.MiddlewareHandler = (*Ready)(nil)
	_ caddyfile.Unmarshaler       = (*Ready)(nil)
)
