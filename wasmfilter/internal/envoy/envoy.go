// Package envoy connects the plugin with Envoy by the proxy-wasm SDK for Go.
// [Register], called from an init function of the module's main package, is all
// that there is to it.
package envoy

import (
	"runtime/debug"
	"time"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/wasmfilter/internal/plugin"
)

// collectAt is when garbage is collected: at so many percent more than what lives.
// A collection stops the worker; what lives is little, and bounded by the caches.
const collectAt = 400

// Register makes the module a Keystile filter.
func Register() {
	debug.SetGCPercent(collectAt)
	proxywasm.SetVMContext(new(vm))
}

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return new(context) }

// context is one plugin configuration in one worker.
type context struct {
	types.DefaultPluginContext
	plugin  *plugin.Plugin
	free    []*stream          // of requests that have ended
	waiting map[uint32]*stream // of requests that wait for a node
	lines   []core.Header      // of the request at hand
}

// OnPluginStart configures the plugin. Envoy refuses to start, or refuses the
// update, where it fails.
func (c *context) OnPluginStart(int) (status types.OnPluginStartStatus) {
	defer func() {
		if v := recover(); v != nil {
			proxywasm.LogCritical(plugin.Line("panic", "error", v))
			status = types.OnPluginStartStatusFailed
		}
	}()
	raw, err := proxywasm.GetPluginConfiguration()
	if err != nil && err != types.ErrorStatusNotFound {
		proxywasm.LogCritical(plugin.Line("the configuration cannot be read", "error", err))
		return types.OnPluginStartStatusFailed
	}
	c.waiting = make(map[uint32]*stream)
	c.plugin = plugin.New(host{c})
	if err := c.plugin.Configure(raw); err != nil {
		proxywasm.LogCritical(plugin.Line("the configuration is refused", "error", err))
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

// OnTick passes the tick on.
func (c *context) OnTick() { c.plugin.Tick() }

// NewHttpContext gives a request its context, one of a request that has ended if
// there is one.
func (c *context) NewHttpContext(id uint32) types.HttpContext {
	if n := len(c.free) - 1; n >= 0 {
		s := c.free[n]
		c.free = c.free[:n]
		s.id, s.stopped = id, false
		return s
	}
	return &stream{context: c, id: id}
}

type stream struct {
	types.DefaultHttpContext
	context *context
	id      uint32
	more    bool // than its headers
	stopped bool
}

// OnHttpRequestHeaders decides the request.
func (s *stream) OnHttpRequestHeaders(_ int, end bool) types.Action {
	s.more = !end
	switch s.context.plugin.Request(s.id, s.more) {
	case plugin.Continue:
		return types.ActionContinue
	case plugin.Wait:
		s.context.waiting[s.id] = s
	}
	s.stopped = true
	return types.ActionPause
}

// OnHttpRequestBody holds a body back while its request waits, and for good once
// the client was answered: nothing of it goes upstream (R69).
func (s *stream) OnHttpRequestBody(int, bool) types.Action { return s.held() }

// OnHttpRequestTrailers takes from trailers what must not go on, and holds them back
// like a body.
func (s *stream) OnHttpRequestTrailers(int) types.Action {
	if s.stopped && s.context.waiting[s.id] == nil {
		return types.ActionPause
	}
	if s.context.plugin.Trailers(s.id) == plugin.Stop {
		s.stopped = true
	}
	return s.held()
}

func (s *stream) held() types.Action {
	if s.stopped {
		return types.ActionPause
	}
	return types.ActionContinue
}

// OnHttpStreamDone ends the context.
func (s *stream) OnHttpStreamDone() {
	if s.more || s.context.waiting[s.id] != nil {
		delete(s.context.waiting, s.id)
		s.context.plugin.Done(s.id)
	}
	s.context.free = append(s.context.free, s)
}

// host is Envoy.
type host struct{ *context }

func (h host) RequestHeaders() ([]core.Header, error) {
	lines, err := proxywasm.GetHttpRequestHeaders()
	return h.take(lines), err
}

// take makes lines what core calls them, in memory that is used again.
func (c *context) take(lines [][2]string) []core.Header {
	c.lines = c.lines[:0]
	for _, l := range lines {
		c.lines = append(c.lines, core.Header{Name: l[0], Value: l[1]})
	}
	return c.lines
}

func (host) RemoveRequestHeader(name string) error { return proxywasm.RemoveHttpRequestHeader(name) }

func (host) SetRequestHeader(name, value string) error {
	return proxywasm.ReplaceHttpRequestHeader(name, value)
}

func (host) AddRequestHeader(name, value string) error {
	return proxywasm.AddHttpRequestHeader(name, value)
}

func (h host) RequestTrailers() ([]core.Header, error) {
	lines, err := proxywasm.GetHttpRequestTrailers()
	return h.take(lines), err
}

func (host) RemoveRequestTrailer(name string) error { return proxywasm.RemoveHttpRequestTrailer(name) }

func (host) AddRequestTrailer(name, value string) error {
	return proxywasm.AddHttpRequestTrailer(name, value)
}

func (host) Respond(status uint32, headers [][2]string, body []byte) error {
	return proxywasm.SendHttpResponse(status, headers, body, -1)
}

func (host) Select(request uint32) error { return proxywasm.SetEffectiveContext(request) }

func (h host) Resume(request uint32) error {
	if s := h.waiting[request]; s != nil {
		s.stopped = false
		delete(h.waiting, request)
	}
	return proxywasm.ResumeHttpRequest()
}

func (host) Dispatch(cluster string, headers [][2]string, timeout time.Duration, limit int, done func(status, etag string, body []byte)) error {
	_, err := proxywasm.DispatchHttpCall(cluster, headers, nil, nil, uint32(timeout.Milliseconds()), func(_, size, _ int) {
		var status, etag string
		lines, _ := proxywasm.GetHttpCallResponseHeaders() // none where nobody has answered
		for _, l := range lines {
			switch l[0] {
			case ":status":
				status = l[1]
			case "etag":
				etag = l[1]
			}
		}
		if size > limit {
			status, size = "too large", 0
		}
		var body []byte
		if size > 0 {
			body, _ = proxywasm.GetHttpCallResponseBody(0, size)
		}
		done(status, etag, body)
	})
	return err
}

func (host) SharedData(key string) ([]byte, uint32, error) { return proxywasm.GetSharedData(key) }

func (host) SetSharedData(key string, value []byte, cas uint32) error {
	return proxywasm.SetSharedData(key, value, cas)
}

func (host) Property(path ...string) []byte {
	b, err := proxywasm.GetProperty(path)
	if err != nil {
		return nil
	}
	return b
}

func (host) SetProperty(name string, value []byte) error {
	return proxywasm.SetProperty([]string{name}, value)
}

func (host) Log(level plugin.Level, line string) {
	switch level {
	case plugin.Info:
		proxywasm.LogInfo(line)
	case plugin.Warn:
		proxywasm.LogWarn(line)
	default:
		proxywasm.LogError(line)
	}
}

func (host) Counter(name string) plugin.Counter { return counter{proxywasm.DefineCounterMetric(name)} }

func (host) Gauge(name string) plugin.Gauge {
	return gauge{proxywasm.MetricHistogram(proxywasm.DefineGaugeMetric(name))}
}

func (host) Tick(milliseconds uint32) error { return proxywasm.SetTickPeriodMilliSeconds(milliseconds) }

type counter struct{ metric proxywasm.MetricCounter }

func (c counter) Add(n uint64) { c.metric.Increment(n) }

// gauge is set by the call that records: the SDK has it for histograms only, and
// its own for gauges adds, so that several workers would add up.
type gauge struct{ metric proxywasm.MetricHistogram }

func (g gauge) Set(v int64) { g.metric.Record(uint64(v)) }
