package caddymodule

import (
	"errors"
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
	for _, collector := range []prometheus.Collector{requests, refused, gauges{}} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(collector); err != nil && !errors.As(err, &already) {
			panic(err) // a programming error: the names are fixed
		}
	}
}

// guardMetrics are one bundle's counters, looked up once.
type guardMetrics struct {
	requests [policy.NumReasons]prometheus.Counter
	bundle   string
}

func newGuardMetrics(bundle string) *guardMetrics {
	m := &guardMetrics{bundle: bundle}
	for i := range m.requests {
		m.requests[i] = requests.WithLabelValues(bundle, policy.Reason(i).String())
	}
	for _, cause := range []string{"rollback", "forked", "future", "invalid"} {
		refused.WithLabelValues(bundle, cause) // shown from the beginning, so that its increase is seen
	}
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

// gauges describe the guards that live, as they are when somebody asks.
type gauges struct{}

// Describe names the gauges.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inForce, degraded, version, age, expires, keys, renewalDue} {
		ch <- d
	}
}

// Collect describes every bundle's guard.
func (gauges) Collect(ch chan<- prometheus.Metric) {
	living.each(func(g *guard) { g.collect(ch) })
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
	flag(degraded, g.memory.degraded.Load())
	if b := g.verifier.Bundle(); b != nil {
		send(version, float64(b.Manifest.Version)/1000)
		send(age, time.Since(time.UnixMilli(b.Manifest.Version)).Seconds())
		send(expires, float64(b.Manifest.Expires)/1000)
		send(keys, float64(b.Manifest.Keys))
		g.collectAge(ch, b)
	}
}
