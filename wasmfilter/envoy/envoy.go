// Package envoy connects the plugin with Envoy by the proxy-wasm SDK for Go.
// [Register], called from an init function of the module's main package, is all
// that there is to it.
package envoy

import (
	"fmt"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/keystile/keystile/wasmfilter/plugin"
)

// Register makes the module a Keystile filter.
func Register() { proxywasm.SetVMContext(new(vm)) }

type vm struct{ types.DefaultVMContext }

func (*vm) NewPluginContext(uint32) types.PluginContext { return new(context) }

// context is one plugin configuration in one worker.
type context struct {
	types.DefaultPluginContext
	plugin *plugin.Plugin
	stream stream // the same for all requests: it keeps nothing
}

// OnPluginStart configures the plugin. Envoy refuses to start, or refuses the
// update, where it fails.
func (c *context) OnPluginStart(int) (status types.OnPluginStartStatus) {
	defer func() {
		if v := recover(); v != nil {
			proxywasm.LogCritical(fmt.Sprintf("keystile: panic: %v", v))
			status = types.OnPluginStartStatusFailed
		}
	}()
	raw, err := proxywasm.GetPluginConfiguration()
	if err != nil && err != types.ErrorStatusNotFound {
		proxywasm.LogCritical("keystile: the configuration cannot be read: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	c.plugin = plugin.New(host{})
	c.stream.plugin = c.plugin
	if err := c.plugin.Configure(raw); err != nil {
		proxywasm.LogCritical("keystile: " + err.Error())
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

// OnTick passes the tick on.
func (c *context) OnTick() { c.plugin.Tick() }

// NewHttpContext gives every request the same context.
func (c *context) NewHttpContext(uint32) types.HttpContext { return &c.stream }

type stream struct {
	types.DefaultHttpContext
	plugin *plugin.Plugin
}

// OnHttpRequestHeaders decides the request. After an answer the stream is paused
// whatever comes, so that nothing of a body goes upstream (R69).
func (s *stream) OnHttpRequestHeaders(int, bool) types.Action {
	if s.plugin.Request() == plugin.Continue {
		return types.ActionContinue
	}
	return types.ActionPause
}

// host is Envoy.
type host struct{}

func (host) RequestHeaders() ([][2]string, error) { return proxywasm.GetHttpRequestHeaders() }

func (host) RemoveRequestHeader(name string) error { return proxywasm.RemoveHttpRequestHeader(name) }

func (host) SetRequestHeader(name, value string) error {
	return proxywasm.ReplaceHttpRequestHeader(name, value)
}

func (host) Respond(status uint32, headers [][2]string, body []byte) error {
	return proxywasm.SendHttpResponse(status, headers, body, -1)
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
