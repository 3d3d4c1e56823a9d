package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/canary"
	"github.com/keystile/keystile/policies"
)

// blab is a handler that logs all that it sees, in a field of each type, and then
// panics with it.
type blab struct {
	logger *zap.Logger
	inner  struct{ logger *zap.Logger }
}

func init() {
	caddy.RegisterModule(blab{})
	httpcaddyfile.RegisterHandlerDirective("blab", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return new(blab), nil })
	httpcaddyfile.RegisterDirectiveOrder("blab", httpcaddyfile.Before, "tracing")
}

func (blab) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.blab", New: func() caddy.Module { return new(blab) }}
}

func (b *blab) Provision(ctx caddy.Context) error {
	b.logger, b.inner.logger = ctx.Logger(), ctx.Logger().Named("inner")
	return nil
}

type word string

func (w word) String() string { return string(w) }

func (b *blab) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	key := r.Header.Get("X-Api-Key")
	if key == "" || r.URL.Path == "/error" {
		return next.ServeHTTP(w, r)
	}
	b.logger.Error("message "+key, blabbed(key)...)
	b.logger.With(blabbed(key)...).Warn("with")
	b.logger.WithLazy(blabbed(key)...).Info("with lazily")
	b.logger.Named(key).Debug("named")
	b.inner.logger.Info("inner", zap.String("inner", key))
	b.logger.Sugar().Infow("sugared "+key, "a", key, "b", map[string]string{key: key})
	caddy.Log().Error("default "+key, zap.String("default", key))
	log.Print("standard ", key)
	panic(errors.New("panic " + key))
}

// blabbed holds a key in a field of each type that can hold text.
func blabbed(key string) []zap.Field {
	header := http.Header{"X-Foo": {key, "other"}, "X-Api-Key": {"not shaped"}}
	fields := []zap.Field{
		zap.String("string", key), zap.ByteString("bytes", []byte(key)), zap.Binary("binary", []byte(key)),
		zap.Stringer("stringer", word(key)), zap.Error(fmt.Errorf("error %s", key)),
		zap.NamedError("joined", errors.Join(errors.New(key), errors.New("b"))),
		zap.Strings("strings", []string{"a", key}), zap.Stringers("stringers", []word{"a", word(key)}),
		zap.ByteStrings("byteStrings", [][]byte{[]byte(key)}), zap.Errors("errors", []error{errors.New(key)}),
		zap.Any("any", header), zap.Reflect("reflect", struct{ A any }{[]any{1, key, map[string]any{key: 1.5}}}),
		zap.Reflect("raw", json.RawMessage(`{"a":"`+key+`"}`)), zap.Stringp("pointer", &key), zap.Reflect("names", map[string]int{key: 1}),
		zap.Dict("dict", zap.String("a", key), zap.Dict("b", zap.String(key, "c"))),
		zap.Object("object", zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error {
			e.OpenNamespace(key)
			e.AddString("X_Api_Key", "not shaped")
			return e.AddArray("list", zapcore.ArrayMarshalerFunc(func(e zapcore.ArrayEncoder) error {
				e.AppendString(key)
				e.AppendByteString([]byte(key))
				return errors.Join(e.AppendReflected([]string{key}), e.AppendObject(caddyhttp.LoggableHTTPHeader{Header: header, ShouldLogCredentials: true}),
					e.AppendArray(caddyhttp.LoggableStringArray{key, "a"}))
			}))
		})),
		zap.Inline(zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error { e.AddString("inline", key); return nil })),
		zap.Object("failing", zapcore.ObjectMarshalerFunc(func(zapcore.ObjectEncoder) error { return errors.New(key) })),
		zap.Stack("stack"), zap.Int("number", 42), zap.Namespace("namespace"), zap.String("in", key),
	}
	for _, name := range []string{"Authorization", "cookie", "x.api.key"} {
		fields = append(fields, zap.String(name, "not shaped"), zap.ByteString(name, []byte("not shaped")), zap.Binary(name, []byte("not shaped")),
			zap.Strings(name, []string{"not shaped"}), zap.Any(name, map[string]string{"a": "not shaped"}), zap.Dict(name, zap.String("a", "not shaped")))
	}
	return fields
}

// R74, in any order in which Caddy provisions its apps (it takes another each time):
// what any handler, made before Keystile or after, or Caddy itself logs in fields of
// whatever type, or panics with, has no API key in it; the rest of the line is there, and
// each line once. Log filters find what they look for.
func TestRedaction(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	logs := t.TempDir()
	standard := new(written)
	before := log.Writer()
	log.SetOutput(standard)
	defer log.SetOutput(before)
	site := func(s *server) string {
		return fmt.Sprintf(`http://api.vinr.com, https://api.vinr.com {
	log {
		output file %s/site.log
	}
	blab
	keystile vinr
	reverse_proxy %s
}
http://other.example, https://other.example {
	log {
		output file %[1]s/other.log
	}
	blab
	error /error "error {http.request.header.X-Api-Key}" 502
	respond "no keystile here"
}
`, logs, s.upstream.Listener.Addr())
	}
	h.extra = strings.NewReplacer("\n\tmetrics\n", "\n", "{dir}", logs, "output stdout", "output file "+logs+"/stdout.log").Replace(everyLog)
	s := start(t, h, []string{"vinr"}, site)
	s.ready("other.example")
	const loads = 8
	for i := range loads {
		if i > 0 {
			if err := s.load(h.globals(s.ports(), "vinr") + site(s)); err != nil {
				t.Fatal(err)
			}
		}
		for _, url := range []string{"https://api.vinr.com/v1/payments", "https://other.example/x?key=" + key, "http://other.example/" + key} {
			client := s.client()
			client.Timeout = 5 * time.Second
			if response, err := client.Do(newRequest(t, "GET", url, "X-Api-Key: "+key, "Cookie: session="+key, "X-Foo: "+key)); err == nil {
				response.Body.Close()
				t.Errorf("%s: %s, after a panic", url, response.Status)
			}
			client.CloseIdleConnections()
		}
		if r := s.do("GET", "https://other.example/error", "X-Api-Key: "+key, "X-Foo: "+key); r.StatusCode != 502 {
			t.Errorf("an error is answered with %s", r.Status)
		}
	}
	if err := caddy.Stop(); err != nil { // and everything is written
		t.Fatal(err)
	}
	found, err := canary.LookInFiles([]string{key}, logs)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range found {
		if t.Errorf("%s", f); i == 5 {
			t.Fatalf("and %d more", len(found)-i-1)
		}
	}
	text := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(logs, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for _, name := range []string{"default.log", "stdout.log", "appended.log", "filtered.log"} {
		for what, want := range map[string]int{
			"message REDACTED": 1, "with lazily": 1, "sugared REDACTED": 1, "http: panic serving": 1, "panic REDACTED": 1,
			"not shaped": 0, "bm90IHNoYXBlZA": 0, `"in"`: 3, "default REDACTED": map[string]int{"default.log": 1}[name], // Caddy's own go nowhere else
		} {
			if got := strings.Count(text(name), what); got != want*3*loads {
				t.Errorf("%s: %d lines with %q, not %d", name, got, what, want*3*loads)
			}
		}
	}
	if got := standard.String(); strings.Count(got, "standard REDACTED") != 3*loads || strings.Contains(got, key) {
		t.Errorf("the package log has written %s", got)
	}
}

// Access logs keep what is no secret, Caddy's own filters still work, and a log of errors
// gets errors alone.
func TestRedactionKeeps(t *testing.T) {
	h := newHome(t, "vinr")
	logs := t.TempDir()
	h.extra = fmt.Sprintf(`
	log errors {
		output file %s/errors.log
		include http.log.error
	}
	log filtered {
		output file %[1]s/filtered.log
		format filter {
			wrap json
			request>headers>X-Forwarded-For ip_mask 16 32
			request>uri query {
				replace secret gone
			}
		}
		include http.log.access
	}
`, logs)
	s := start(t, h, []string{"vinr"}, func(s *server) string {
		return vinr(s) + "http://plain.example {\n\tlog\n\trespond hi\n}\n"
	})
	s.do("GET", "http://plain.example/a?secret=1&b=2", "X-Forwarded-For: 192.0.2.77", "X-Custom: some text", "Referer: https://shop.example/page")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(logs, "filtered.log"))
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Logger  string `json:"logger"`
		Status  int    `json:"status"`
		Request struct {
			Method, URI string
			Headers     map[string][]string
		}
	}
	if err := json.Unmarshal([]byte(raw), &line); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	if r := line.Request; line.Status != 200 || r.Method != "GET" || r.URI != "/a?b=2&secret=gone" || fmt.Sprint(r.Headers["X-Custom"]) != "[some text]" ||
		fmt.Sprint(r.Headers["Referer"]) != "[https://shop.example/page]" || fmt.Sprint(r.Headers["X-Forwarded-For"]) != "[192.0.0.0]" {
		t.Errorf("%s", raw)
	}
	if raw, _ := os.ReadFile(filepath.Join(logs, "errors.log")); len(raw) > 0 {
		t.Errorf("errors.log has %s", raw)
	}
}

// A bundle that comes later may name other headers: they are covered from then on,
// without a reload.
func TestRedactionLearns(t *testing.T) {
	h := newHome(t)
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf("X-Shop-%d", rand.Uint32()) // which no policy of this process has named
	document = []byte(strings.Replace(string(document), "sources:", "sources:\n  - {header: "+header+"}", 1))
	b, err := h.Init(context.Background(), control.NewBundle{Name: "shop", Audience: bundle.DefaultAudience, Policy: document, File: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	away := b.File() + ".away"
	if err := os.Rename(b.File(), away); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "default.log")
	h.extra = fmt.Sprintf("\n\tlog {\n\t\toutput file %s\n\t}\n", file)
	s := load(t, h, []string{"shop"}, func(*server) string {
		return "http://shop.example, https://shop.example {\n\tlog\n\tkeystile shop\n\trespond ok\n}\n"
	})
	s.ready("shop.example")
	ask := func(value string) int {
		return s.do("GET", "https://shop.example/", header+": "+value, strings.ReplaceAll(header, "-", ".")+": "+value).StatusCode
	}
	if status := ask("before"); status != 503 {
		t.Fatal("without a bundle: ", status)
	}
	if err := os.Rename(away, b.File()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ask("before") == 503; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the bundle is not used")
		}
	}
	ask("behind")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if log := string(text); !strings.Contains(log, "before") || !strings.Contains(log, `"`+header+`":["REDACTED"]`) || strings.Contains(log, "behind") {
		t.Errorf("%s", log)
	}
}

// What the option takes, and that it is obeyed, is in TestCanary and TestAdapt.
func TestRedactionOption(t *testing.T) {
	h := newHome(t, "vinr")
	config := new(caddy.Config)
	raw := strings.Replace(string(adapt(t, h.globals("", "vinr")+"http://api.vinr.com {\n\tkeystile vinr\n}\n")), `"bundles"`, `"log_redaction":"on","bundles"`, 1)
	if err := caddy.StrictUnmarshalJSON([]byte(raw), config); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(config); err == nil || !strings.Contains(err.Error(), "leave it out, or use off") {
		t.Error(err)
	}
}
