package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/policy"
)

// Handler decides requests by a bundle: it lets the next handler have those that
// the API's policy allows, without the API key and with headers that say who
// calls, and answers all others itself as the policy says.
//
// After it, these placeholders are set: `{http.auth.user.id}` and
// `{http.keystile.key_id}` (the key's public ID), `{http.keystile.kind}`,
// `{http.keystile.environment}`, `{http.keystile.tenant}`,
// `{http.keystile.scopes}`, `{http.keystile.customer}`,
// `{http.keystile.route}`, `{http.keystile.policy}`,
// `{http.keystile.request_id}` and `{http.keystile.reason}` (`ok`, or why the
// request was denied).
type Handler struct {
	// The name of the bundle, as in the `keystile` app.
	Bundle string `json:"bundle,omitempty"`

	// What to do with a denial: `answer` (the default) sends the policy's own
	// answer, byte for byte; `pass` returns an error with its status, for
	// `handle_errors`, with the answer's headers but not its body.
	Errors string `json:"errors,omitempty"`

	// Decide by the path and query that the next handler will see, although a
	// handler before has changed them. Without it a request that was rewritten
	// is denied, since the policy speaks of what clients send.
	Rewritten bool `json:"rewritten,omitempty"`

	edge   *edge
	logger *zap.Logger
	// strict is what the server does with X-Forwarded-For.
	strict bool
}

// The values of Handler.Errors.
const (
	errorsAnswer = "answer"
	errorsPass   = "pass"
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keystile", New: func() caddy.Module { return new(Handler) }}
}

// Provision finds the bundle, and refuses a server around the handler that
// would break what a policy promises.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	if h.Errors != "" && h.Errors != errorsAnswer && h.Errors != errorsPass {
		return fmt.Errorf("errors %q: use %s or %s", h.Errors, errorsAnswer, errorsPass)
	}
	if h.Bundle == "" {
		return errors.New("no bundle is named: write `keystile <bundle>`")
	}
	app, err := ctx.App("keystile")
	if err != nil {
		return err
	}
	if h.edge, err = app.(*App).edge(h.Bundle); err != nil {
		return err
	}
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return errors.New("it can only be used in a server of the http app")
	}
	h.strict = server.TrustedProxiesStrict > 0
	if !h.strict && h.edge.restrictsIP() && trustsProxies(server) {
		return fmt.Errorf("bundle %q limits keys to IP addresses, and the server trusts proxies without trusted_proxies_strict, so that a client could choose its address: add `trusted_proxies_strict` beside trusted_proxies", h.Bundle)
	}
	return checkPlainHTTP(ctx, server)
}

// ServeHTTP decides one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	x := &exchange{handler: h, r: r}
	x.translate()
	x.decision = h.edge.decide(&x.request)
	d := &x.decision
	h.edge.metrics.requests[d.Reason].Inc()
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(x.placeholder)
	}
	if d.Outcome != core.Allow {
		return h.answer(w, r, d)
	}
	forward(r, d)
	return next.ServeHTTP(w, r)
}

// exchange is one request on its way through the handler. It lives as long as
// placeholders may be asked for.
type exchange struct {
	handler  *Handler
	r        *http.Request
	request  core.Request
	decision core.Decision
}

// headers gives core the lines of a request's header.
type headers http.Header

func (h headers) Values(name string) []string { return h[name] }

// translate puts the request into core's terms.
func (x *exchange) translate() {
	r, to := x.r, &x.request
	to.Method, to.Authority, to.Headers, to.ClientIP = r.Method, r.Host, headers(r.Header), x.clientIP
	if r.TLS == nil {
		to.Peer = parseAddr(r.RemoteAddr) // asked for only then
	} else {
		to.TLS, to.EarlyData, to.SNI = true, !r.TLS.HandshakeComplete, r.TLS.ServerName
	}
	if x.handler.Rewritten {
		to.Path, to.Query = r.URL.EscapedPath(), r.URL.RawQuery
		return
	}
	// What was received, byte for byte. If it is in canonical form, the next
	// handler's URL says the same.
	target := r.RequestURI
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if ok {
		target = original.RequestURI
		to.Rewritten = target != r.RequestURI || !sameURL(original.URL, r.URL)
	}
	to.Path, to.Query, _ = strings.Cut(target, "?")
}

func sameURL(a, b *url.URL) bool {
	return a.Path == b.Path && a.RawPath == b.RawPath && a.RawQuery == b.RawQuery
}

// clientIP is Caddy's, or none if it comes from a list in which the client may
// have written the first entry.
func (x *exchange) clientIP() netip.Addr {
	ctx := x.r.Context()
	if trusted, _ := caddyhttp.GetVar(ctx, caddyhttp.TrustedProxyVarKey).(bool); trusted && !x.handler.strict {
		return netip.Addr{}
	}
	s, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	return parseAddr(s)
}

// forward makes the request what the next handler gets.
func forward(r *http.Request, d *core.Decision) {
	for name := range r.Header {
		if d.Strips(name) {
			delete(r.Header, name)
		}
	}
	if len(r.Trailer) > 0 {
		filterTrailers(r, d)
	}
	if lines := r.Header["Connection"]; len(lines) > 0 {
		cleaned := make([]string, 0, len(lines))
		for _, line := range lines {
			if line = d.Connection(line); line != "" {
				cleaned = append(cleaned, line)
			}
		}
		r.Header["Connection"] = cleaned
	}
	values := make([]string, len(d.Set))
	for i, s := range d.Set {
		values[i] = s.Value
		r.Header[s.Name] = values[i : i+1 : i+1]
	}
}

// filterTrailers lets only those trailers go on that were announced and would go
// on as headers. The server adds all that arrive, announced or not, to the map
// that it gave us when the body ends (R30), so that the next handler gets a map
// of its own.
func filterTrailers(r *http.Request, d *core.Decision) {
	arriving, passed := r.Trailer, make(http.Header)
	for name := range arriving {
		if !d.Strips(name) {
			passed[name] = nil
		}
	}
	r.Trailer = passed
	r.Body = &trailerBody{r.Body, arriving, passed}
}

type trailerBody struct {
	io.ReadCloser
	arriving, passed http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.passed {
			b.passed[name] = b.arriving[name]
		}
	}
	return n, err
}

// answer sends what the client gets for a request that does not go on.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, d *core.Decision) error {
	if d.Outcome == core.Deny {
		h.log(r, d)
	}
	pass := h.Errors == errorsPass && d.Outcome == core.Deny
	header := w.Header()
	for _, f := range d.Header {
		if pass && f.Name == "Content-Type" {
			continue
		}
		header[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
	}
	if d.Close && r.ProtoMajor == 1 {
		header["Connection"] = []string{"close"}
	}
	if pass {
		return caddyhttp.HandlerError{
			StatusCode: d.Status, ID: d.RequestID, Err: fmt.Errorf("keystile: %s", d.Reason),
		}
	}
	w.WriteHeader(d.Status)
	if len(d.Body) > 0 {
		_, err := w.Write(d.Body)
		return err
	}
	return nil
}

// log writes one line for a denial, by which support finds a Request-Id.
func (h *Handler) log(r *http.Request, d *core.Decision) {
	level := zapcore.InfoLevel
	if d.Reason >= policy.NoBundle {
		level = zapcore.ErrorLevel
	}
	c := h.logger.Check(level, "denied")
	if c == nil {
		return
	}
	fields := make([]zap.Field, 0, 10)
	fields = append(fields,
		zap.String("request_id", d.RequestID),
		zap.String("reason", d.Reason.String()),
		zap.Int("status", d.Status),
		zap.String("bundle", h.Bundle),
		zap.String("policy", d.Policy()))
	if d.Route != "" {
		fields = append(fields, zap.String("route", d.Route))
	}
	if d.Key != nil {
		fields = append(fields, zap.String("key_id", d.Key.ID))
	}
	if d.RequiredScope != "" {
		fields = append(fields, zap.String("required_scope", d.RequiredScope))
	}
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		fields = append(fields, zap.String("client_ip", ip))
	}
	if d.Err != nil {
		fields = append(fields, zap.Error(d.Err))
	}
	c.Write(fields...)
}

// placeholder gives the decision to the rest of the configuration.
func (x *exchange) placeholder(name string) (any, bool) {
	d := &x.decision
	if name == "http.auth.user.id" {
		if d.Outcome == core.Allow && d.Key != nil {
			return d.Key.ID, true
		}
		return nil, false
	}
	field, ok := strings.CutPrefix(name, "http.keystile.")
	if !ok {
		return nil, false
	}
	key := d.Key
	if key == nil {
		key = new(core.Key)
	}
	switch field {
	case "reason":
		return d.Reason.String(), true
	case "request_id":
		return d.RequestID, true
	case "policy":
		return d.Policy(), true
	case "route":
		return d.Route, true
	case "customer":
		return d.Customer, true
	case "key_id":
		return key.ID, true
	case "kind":
		return key.Kind, true
	case "environment":
		return key.Environment, true
	case "tenant":
		return key.Tenant, true
	case "scopes":
		return key.Scopes, true
	}
	return nil, false
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
