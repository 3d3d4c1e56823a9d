package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
)

func init() {
	caddy.RegisterModule(Admin{})
}

// Admin is what Caddy's admin endpoint says of the bundles: `GET /keystile/` of all, and
// `GET /keystile/<name>` of one. It has no secret, and nothing of any one key.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.keystile", New: func() caddy.Module { return new(Admin) }}
}

const adminPath = "/keystile/"

// Routes returns the routes of the admin endpoint.
func (Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: caddy.AdminHandlerFunc(serveAdmin)}}
}

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Err: errors.New("only GET and HEAD are answered: bundles are changed by their files")}
	}
	reports := make([]*report, 0)
	living.each(func(g *guard) { reports = append(reports, g.report()) })
	slices.SortFunc(reports, func(a, b *report) int { return strings.Compare(a.Name, b.Name) })
	name := strings.TrimPrefix(r.URL.Path, adminPath)
	if name == "" {
		return writeJSON(w, map[string]any{"bundles": reports})
	}
	i := slices.IndexFunc(reports, func(r *report) bool { return r.Name == name })
	if i < 0 {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("no bundle %q is configured: GET %s names those that are", secrets.current.Load().Text(name), adminPath)}
	}
	return writeJSON(w, reports[i])
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	out := json.NewEncoder(w)
	out.SetIndent("", "\t")
	return out.Encode(v)
}

// report is what is said of a bundle.
type report struct {
	Name      string         `json:"name"`
	Ready     bool           `json:"ready"`         // requests are decided by it
	Why       string         `json:"why,omitempty"` // they are all denied
	File      string         `json:"file"`
	Audience  string         `json:"audience"`
	MaxAge    float64        `json:"max_age_seconds,omitempty"`
	InUse     *inUse         `json:"in_use"` // null where there is none
	Trust     reportOfTrust  `json:"trust"`
	State     reportOfState  `json:"state"`
	Caches    core.CacheUses `json:"caches"`
	LastError *trouble       `json:"last_error"` // null where there was none
}

// inUse is the bundle that requests are decided by, in force or not.
type inUse struct {
	Policy        string    `json:"policy"`
	Version       int64     `json:"version"`
	PolicyVersion int64     `json:"policy_version"`
	Signed        time.Time `json:"signed"`
	Expires       time.Time `json:"expires"`
	Age           float64   `json:"age_seconds"`
	Keys          uint64    `json:"keys"`
}

type reportOfTrust struct {
	Threshold  int                `json:"threshold"`
	Signers    []bundle.Signature `json:"policy_signers"`
	Publishers []bundle.Signature `json:"publishers"` // that the policy note lists
}

type reportOfState struct {
	File     string `json:"file"` // "off" where nothing is kept
	Degraded bool   `json:"degraded"`
}

// trouble is what went wrong last, for those who come later than its log line. It stays
// when it is mended: its time says how old it is.
type trouble struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

func (g *guard) report() *report {
	r := &report{
		Name: g.name, File: g.source.path, Audience: g.trust.Audience(), MaxAge: g.maxAge.Seconds(),
		State: g.memory.report(), Caches: g.verifier.CacheUses(), LastError: g.trouble.Load(),
		Trust: reportOfTrust{Threshold: g.trust.Threshold(), Publishers: []bundle.Signature{}},
	}
	if err := g.verifier.Status(); err != nil {
		r.Why = err.Error()
	} else {
		r.Ready = true
	}
	b := g.verifier.Bundle()
	if b == nil {
		r.Trust.Signers = g.trust.Signatures(nil)
		return r
	}
	signed := time.UnixMilli(b.Manifest.Version)
	r.InUse = &inUse{
		Policy: b.Policy.Name, Version: b.Manifest.Version, PolicyVersion: b.PolicyNote.Version,
		Signed: signed, Expires: time.UnixMilli(b.Manifest.Expires), Age: time.Since(signed).Seconds(), Keys: b.Manifest.Keys,
	}
	r.Trust.Signers, r.Trust.Publishers = g.trust.Signatures(&b.Mark), b.Mark.Signatures()
	return r
}

func (m *memory) report() reportOfState {
	if m.state == nil {
		return reportOfState{File: StateOff}
	}
	return reportOfState{File: m.state.Path(), Degraded: m.degraded.Load()}
}

var _ caddy.AdminRouter = (*Admin)(nil)
