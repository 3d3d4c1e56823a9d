package caddymodule

import (
	"maps"
	"reflect"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// redactLogs keeps secrets out of all logs of the configuration that is being loaded. Caddy
// lets no module change how a log is written that its configuration does not name, so it
// reaches for them by [private]. Where a later Caddy lacks a field, the configuration is
// refused; TestRedaction and TestCanary fail then.
//
// A logger takes its log's core along when it is made. So the cores are exchanged for
// those made later, which are nearly all if this app comes first; what has been made
// before belongs to modules that are there already, and is exchanged in these. Apps are
// provisioned in no certain order, and http provisions this one while it is about its
// own handlers. No request is served before all are.
func redactLogs(ctx caddy.Context) error {
	config, err := private[*caddy.Config](&ctx, "cfg")
	if err != nil {
		return err
	}
	loaded, err := private[map[string][]caddy.Module](&ctx, "moduleInstances")
	if err != nil {
		return err
	}
	for _, log := range (*config).Logging.Logs {
		core, err := private[zapcore.Core](&log.BaseLog, "core")
		if err != nil {
			return err
		}
		*core = redacting(*core)
	}
	for _, m := range ctx.Modules() {
		if err := redactModule(m); err != nil {
			return err
		}
	}
	for instances := range maps.Values(*loaded) {
		for _, m := range instances {
			if err := redactModule(m); err != nil {
				return err
			}
		}
	}
	redactDefaultLog()
	redactStandardLog()
	return nil
}

// redactDefaultLog exchanges Caddy's default logger. There is no function for that, but
// one that puts a buffer in its place, and one that puts a logger in the buffer's.
func redactDefaultLog() {
	_, logger, _ := caddy.BufferedLog()
	caddy.UnbufferDefaultLogger(redactedLogger(logger))
}

// redacted says whether the configuration that is in use keeps secrets out of its logs.
var redacted atomic.Bool

// keepLogsRedacted does again what a configuration has undone that failed to load: Caddy
// keeps the default logger of that, in which this app was not yet.
func keepLogsRedacted() {
	if _, done := caddy.Log().Core().(redactingCore); done || !redacted.Load() {
		return
	}
	redactDefaultLog()
	redactStandardLog()
}

// redactModule exchanges the loggers of a module that sees requests.
func redactModule(m caddy.Module) error {
	if id := string(m.CaddyModule().ID); id != "http" && !strings.HasPrefix(id, "http.") {
		return nil
	}
	app, ok := m.(*caddyhttp.App)
	if !ok {
		redactFields(reflect.ValueOf(m))
		return nil
	}
	if err := redactField(app, "logger"); err != nil {
		return err
	}
	for _, server := range app.Servers {
		for _, name := range []string{"logger", "accessLogger", "errorLogger", "traceLogger"} {
			if err := redactField(server, name); err != nil {
				return err
			}
		}
	}
	return nil
}

func redactField(in any, name string) error {
	logger, err := private[*zap.Logger](in, name)
	if err == nil && *logger != nil {
		*logger = redactedLogger(*logger)
	}
	return err
}

// redactFields exchanges the loggers in the fields of a struct, and of structs in it.
func redactFields(v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || !v.CanAddr() {
		return
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Type() == reflect.TypeFor[*zap.Logger]() && !f.IsNil() {
			logger := (**zap.Logger)(f.Addr().UnsafePointer())
			*logger = redactedLogger(*logger)
		} else if f.Kind() == reflect.Struct {
			redactFields(f)
		}
	}
}

func redactedLogger(l *zap.Logger) *zap.Logger { return l.WithOptions(zap.WrapCore(redacting)) }
