package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

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

	guard    *guard
	server   *caddyhttp.Server
	underWay *underWay
	logger   *zap.Logger
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
	if h.guard, err = app.(*App).guard(h.Bundle); err != nil {
		return err
	}
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return errors.New("it can only be used in a server of the http app")
	}
	h.server, h.underWay = server, underWayOf(h.Bundle)
	if server.TrustedProxiesStrict == 0 && h.guard.restrictsIP() && trustsProxies(server) {
		return fmt.Errorf("bundle %q limits keys to IP addresses, and the server trusts proxies without trusted_proxies_strict, so that a client could choose its address: add `trusted_proxies_strict` beside trusted_proxies", h.Bundle)
	}
	return checkPlainHTTP(ctx, server)
}

// ServeHTTP decides one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	x := &exchange{handler: h, r: r}
	t := translations.Get().(*translation)
	x.translate(t)
	x.decision = h.guard.decide(&t.request)
	d := &x.decision
	h.guard.metrics.requests[d.Reason].Inc()
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(x.placeholder)
	}
	if d.Outcome != core.Allow {
		defer t.release()
		return h.answer(w, r, t, d)
	}
	strip(r, t, d)
	t.release()
	values := make([]string, len(d.Set)+1)
	for i, s := range d.Set {
		values[i] = s.Value
		r.Header[s.Name] = values[i : i+1 : i+1]
	}
	values[len(d.Set)] = d.RequestID
	r.Header[policy.RequestID] = values[len(d.Set):]
	return x.serve(w, r, next)
}

// exchange is one request on its way through the handler. It lives as long as
// placeholders may be asked for.
type exchange struct {
	handler  *Handler
	r        *http.Request
	decision core.Decision
	response response
}

// translation is a request in core's terms. It is used again for another.
type translation struct {
	request core.Request
	header  http.Header
	lines   []core.Header
}

var translations = sync.Pool{New: func() any { return new(translation) }}

// release lets another request have the translation, without what is of this one.
func (t *translation) release() {
	clear(t.lines)
	*t = translation{lines: t.lines[:0]}
	translations.Put(t)
}

// Lines gives core the lines of the request's header.
func (t *translation) Lines() []core.Header {
	if len(t.lines) == 0 {
		for name, values := range t.header {
			for _, v := range values {
				t.lines = append(t.lines, core.Header{Name: name, Value: v})
			}
		}
	}
	return t.lines
}

// translate puts the request into core's terms.
func (x *exchange) translate(t *translation) {
	r, to := x.r, &t.request
	t.header = r.Header
	to.Method, to.Authority, to.Headers, to.ClientIP = r.Method, r.Host, t, x.clientIP
	to.WithID = true
	to.HTTP11, to.Body = r.ProtoMajor == 1 && r.ProtoMinor == 1, r.ContentLength != 0
	if r.TLS == nil {
		to.Peer = parseAddr(r.RemoteAddr) // asked for only then
	} else {
		to.TLS, to.EarlyData, to.SNI = true, !r.TLS.HandshakeComplete, r.TLS.ServerName
	}
	// What was received, byte for byte. If it is in canonical form, the next
	// handler's URL says the same.
	target := r.RequestURI
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if ok {
		target = original.RequestURI
	}
	if x.handler.Rewritten && strings.HasPrefix(target, "/") {
		to.Path, to.Query = r.URL.EscapedPath(), r.URL.RawQuery
		return
	}
	to.Rewritten = ok && !x.handler.Rewritten && (target != r.RequestURI || !sameURL(original.URL, r.URL))
	to.Path, to.Query, _ = strings.Cut(target, "?")
}

func sameURL(a, b *url.URL) bool {
	return a.Path == b.Path && a.RawPath == b.RawPath && a.RawQuery == b.RawQuery
}

// clientIP is Caddy's, or none if the client may have written it.
func (x *exchange) clientIP() netip.Addr {
	ctx := x.r.Context()
	s, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	if trusted, _ := caddyhttp.GetVar(ctx, caddyhttp.TrustedProxyVarKey).(bool); trusted && !x.handler.believes(x.r, s) {
		return netip.Addr{}
	}
	return parseAddr(s)
}

// believes says whether a client's address that Caddy took from the header is one
// that a trusted proxy has written: every entry right of it is an address. Caddy skips
// those that are none, and so comes to what the client wrote (R39, R42).
func (h *Handler) believes(r *http.Request, client string) bool {
	if h.server.TrustedProxiesStrict == 0 {
		return false
	}
	for _, name := range h.server.ClientIPHeaders {
		lines := r.Header.Values(name)
		if len(lines) == 0 {
			continue
		}
		for _, entry := range slices.Backward(strings.Split(strings.Join(lines, ","), ",")) {
			addr, ok := forwardedAddr(entry)
			if !ok {
				return false
			}
			if addr.String() == client {
				return true
			}
		}
	}
	return parseAddr(r.RemoteAddr).String() == client // all are trusted proxies
}

// forwardedAddr reads an entry of X-Forwarded-For: an address, maybe with a port.
func forwardedAddr(entry string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(entry); err == nil {
		entry = host
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(entry))
	return addr, err == nil && addr.Zone() == ""
}

// parseAddr reads an address of Go's net package, with or without a port.
func parseAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr()
	}
	addr, _ := netip.ParseAddr(s)
	return addr
}

// strip takes from the request what must not go on, on whatever outcome: to the next
// handler or to an error page.
func strip(r *http.Request, t *translation, d *core.Decision) {
	for _, l := range t.Lines() {
		if to, ok := d.Line(l.Name, l.Value); ok && to == l.Value {
			continue
		}
		var kept []string
		for _, value := range r.Header[l.Name] {
			if to, ok := d.Line(l.Name, value); ok {
				kept = append(kept, to)
			}
		}
		if kept == nil {
			delete(r.Header, l.Name)
		} else {
			r.Header[l.Name] = kept
		}
	}
	if len(r.Trailer) > 0 {
		filterTrailers(r, d)
	}
}

// filterTrailers lets only those trailers go on that were announced and would go
// on as headers. The server adds all that arrive, announced or not, to the map
// that it gave us when the body ends (R30), so that the next handler gets a map
// of its own.
func filterTrailers(r *http.Request, d *core.Decision) {
	arriving, passed := r.Trailer, make(http.Header)
	for name := range arriving {
		if d.Trailer(name, "") {
			passed[name] = nil
		}
	}
	r.Trailer = passed
	r.Body = &trailerBody{r.Body, d, arriving, passed}
}

type trailerBody struct {
	io.ReadCloser
	decision         *core.Decision
	arriving, passed http.Header
}

func (b *trailerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		for name := range b.passed {
			b.passed[name] = slices.DeleteFunc(slices.Clone(b.arriving[name]), func(value string) bool { return !b.decision.Trailer(name, value) })
		}
	}
	return n, err
}

// answer sends what the client gets for a request that does not go on.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, t *translation, d *core.Decision) error {
	if d.Outcome == core.Deny {
		h.log(r, &t.request, d)
	}
	pass := h.Errors == errorsPass && d.Outcome == core.Deny && d.MayPass(r.RequestURI) && d.MayPass(r.URL.RequestURI())
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
		strip(r, t, d)
		r.Header[policy.RequestID] = []string{d.RequestID}
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
func (h *Handler) log(r *http.Request, asked *core.Request, d *core.Decision) {
	level := zapcore.InfoLevel
	if d.Reason >= policy.NoBundle {
		level = zapcore.ErrorLevel
	}
	c := h.logger.Check(level, "denied")
	if c == nil {
		return
	}
	fields := append(make([]zap.Field, 0, 20), zap.Int("status", d.Status), zap.String("bundle", h.Bundle))
	for _, f := range d.Fields(asked) {
		fields = append(fields, zap.String(f.Name, f.Value))
	}
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok {
		fields = append(fields, zap.String("client_ip", ip))
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
