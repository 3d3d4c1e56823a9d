package caddymodule

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// The counters are made once: Caddy makes a new registry at every reload, and
// counters go on.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "keystile", Name: "requests_total",
		Help: "Requests decided, by bundle and reason; ok is allowed.",
	}, []string{"bundle", "reason"})
	refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "caddy", Subsystem: "keystile", Name: "bundles_refused_total",
		Help: "Bundles that were not taken into use, by cause: rollback, forked, future, or invalid.",
	}, []string{"bundle", "cause"})
)

func registerMetrics(registry *prometheus.Registry) {
	if registry == nil {
		return
	}
	for _, collector := range []prometheus.Collector{requests, refused, &living} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(collector); err != nil && !errors.As(err, &already) {
			panic(err) // a programming error: the names are fixed
		}
	}
}

// guardMetrics are one edge's, looked up once.
type guardMetrics struct {
	requests [policy.NumReasons]prometheus.Counter
	bundle   string
	// degraded is set while what is in use could not be remembered.
	degraded atomic.Bool
}

func newGuardMetrics(e *guard) *guardMetrics {
	m := &guardMetrics{bundle: e.name}
	for i := range m.requests {
		m.requests[i] = requests.WithLabelValues(e.name, policy.Reason(i).String())
	}
	for _, cause := range []string{"rollback", "forked", "future", "invalid"} {
		refused.WithLabelValues(e.name, cause) // shown from the beginning, so that its increase is seen
	}
	living.add(e)
	return m
}

// refuse counts a bundle that was not taken into use.
func (m *guardMetrics) refuse(err error) {
	cause := "invalid"
	switch {
	case errors.Is(err, bundle.ErrRollback):
		cause = "rollback"
	case errors.Is(err, bundle.ErrForked):
		cause = "forked"
	case errors.Is(err, bundle.ErrFuture):
		cause = "future"
	}
	refused.WithLabelValues(m.bundle, cause).Inc()
}

// gauges describe the edges that live, as they are when somebody asks. While one
// configuration takes another's place a bundle has two edges, and the later one
// counts.
type gauges struct {
	mu     sync.Mutex
	guards []*guard
}

var living gauges

func (g *gauges) add(e *guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guards = append(g.guards, e)
}

// find returns the latest edge of a bundle, or nil.
func (g *gauges) find(name string) *guard {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range slices.Backward(g.guards) {
		if e.name == name {
			return e
		}
	}
	return nil
}

func (g *gauges) remove(e *guard) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guards = slices.DeleteFunc(g.guards, func(other *guard) bool { return other == e })
}

func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("caddy", "keystile", name), help, []string{"bundle"}, nil)
}

var (
	inForce  = gauge("bundle_in_force", "1 if requests are decided by the bundle, 0 if all are denied: there is none, it has expired or is too old, or the clock is wrong.")
	degraded = gauge("state_degraded", "1 if the bundle in use could not be remembered for the next start.")
	version  = gauge("bundle_version_seconds", "When the bundle in use was signed, as Unix time.")
	age      = gauge("bundle_age_seconds", "How long ago, by this clock, the bundle in use was signed.")
	expires  = gauge("bundle_expires_seconds", "When the bundle in use expires, as Unix time.")
	keys     = gauge("bundle_keys", "Key records in the bundle in use.")
)

// Describe names the gauges.
func (*gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inForce, degraded, version, age, expires, keys, renewalDue} {
		ch <- d
	}
}

// Collect describes every bundle's edge.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := make(map[string]bool)
	for _, e := range slices.Backward(g.guards) {
		if !seen[e.name] {
			seen[e.name] = true
			e.collect(ch)
		}
	}
}

func (g *guard) collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, g.name)
	}
	flag := func(d *prometheus.Desc, set bool) {
		v := 0.0
		if set {
			v = 1
		}
		send(d, v)
	}
	flag(inForce, g.verifier.Status() == nil)
	flag(degraded, g.metrics.degraded.Load())
	if b := g.verifier.Bundle(); b != nil {
		send(version, float64(b.Manifest.Version)/1000)
		send(age, time.Since(time.UnixMilli(b.Manifest.Version)).Seconds())
		send(expires, float64(b.Manifest.Expires)/1000)
		send(keys, float64(b.Manifest.Keys))
		g.collectAge(ch, b)
	}
}
