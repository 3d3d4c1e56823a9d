package caddymodule

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/redact"
)

// A field that a later Caddy does not have, or has with another type, is an error, and
// no memory is touched.
func TestPrivate(t *testing.T) {
	in := &struct{ logger, other *zap.Logger }{logger: zap.NewNop()}
	if f, err := private[*zap.Logger](in, "logger"); err != nil || *f != in.logger {
		t.Error(f, err)
	}
	if _, err := private[*zap.Logger](in, "errorLogger"); err == nil || !strings.Contains(err.Error(), "no field errorLogger of type *zap.Logger") {
		t.Error(err)
	}
	if _, err := private[zapcore.Core](in, "logger"); err == nil {
		t.Error("a field of another type is taken")
	}
}

// Nothing of an entry has a secret in it, a log is not wrapped again at each reload, and a
// value without a secret stays what it is.
func TestRedactedAlone(t *testing.T) {
	const key = "sk_live_0123456789abcdefghijABCDEFGHIJ01234567"
	if e := redactedEntry(zapcore.Entry{LoggerName: "a " + key, Message: "b " + key, Stack: "c " + key}); e.LoggerName != "a REDACTED" || e.Message != "b REDACTED" || e.Stack != "c REDACTED" {
		t.Errorf("%+v", e)
	}
	once := redacting(zapcore.NewNopCore())
	if redacting(once) != once {
		t.Error("a core is wrapped twice")
	}
	defer log.SetOutput(log.Writer())
	redactStandardLog()
	writer := log.Writer()
	if redactStandardLog(); log.Writer() != writer {
		t.Error("the package log is wrapped twice")
	}
	rules := secrets.current.Load()
	plain := &struct{ B, A string }{"<b>", "a"}
	if got, err := redactedValue(rules, plain); err != nil || got != any(plain) {
		t.Errorf("%v, %v", got, err)
	}
	got, err := redactedValue(rules, map[string]any{"n": uint64(1<<63 + 1), "k": "the key " + key, "m": "<&>"})
	if err != nil {
		t.Fatal(err)
	}
	if out := fmt.Sprint(got); out != "map[k:the key REDACTED m:<&> n:9223372036854775809]" {
		t.Error(out)
	}
}

// A configuration that fails to load leaves its default logger behind, which Keystile has
// not seen: secrets stay out of that too, unless the configuration in use is to leave logs
// alone.
func TestDefaultLogAfterFailedLoad(t *testing.T) {
	const key = "sk_live_0123456789abcdefghijABCDEFGHIJ01234567"
	p, dir := newPublisher(t), t.TempDir()
	p.write(dir, p.pack(hourAgo, nil))
	g, _ := p.guard(dir, bundle.DefaultAudience)
	defer p.end(g)
	exchange := func(to *zap.Logger) (before *zap.Logger) {
		_, before, _ = caddy.BufferedLog()
		caddy.UnbufferDefaultLogger(to)
		return before
	}
	core, logs := observer.New(zapcore.InfoLevel)
	before := exchange(zap.New(core))
	defer exchange(before)
	keepLogsRedacted()
	if caddy.Log().Info(key); logs.FilterMessage(key).Len() != 1 {
		t.Error("it is redacted though nobody has asked for that")
	}
	redacted.Store(true)
	defer redacted.Store(false)
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if caddy.Log().Info(key); logs.FilterMessage(redact.Mark).Len() > 0 {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the default log shows API keys")
		}
	}
}

// The cost of a line of the access log, with its secrets and without.
func BenchmarkAccessLog(b *testing.B) {
	plain := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel)
	r := httptest.NewRequest(http.MethodGet, "https://api.example.com/v1/payments?limit=10&after=pay_1234567890", nil)
	r.Header = http.Header{
		"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"},
		"Accept":          {"application/json, text/plain, */*"},
		"Accept-Encoding": {"gzip, deflate, br"},
		"X-Api-Key":       {"sk_live_0123456789abcdefghijABCDEFGHIJ01234567"},
	}
	for name, core := range map[string]zapcore.Core{"plain": plain, "redacted": redacting(plain)} {
		b.Run(name, func(b *testing.B) {
			logger := zap.New(core).Named("http.log.access")
			b.ReportAllocs()
			for b.Loop() {
				logger.WithLazy(zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: r})).Info("handled request",
					zap.Int("bytes_read", 0), zap.String("user_id", "key_2NfYwE0w3oYkqz1mXqUuKd"), zap.Duration("duration", 1000), zap.Int("size", 10), zap.Int("status", 200))
			}
		})
	}
}
