package caddymodule

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keystile/keystile/core/policy"
)

// The collectors are made once: Caddy makes a new registry at every reload, and
// counters go on.
var collectors = sync.OnceValue(func() *collectorSet {
	opts := func(name, help string) (string, string, string, string) { return "caddy", "keystile", name, help }
	gauge := func(name, help string) *prometheus.GaugeVec {
		ns, sub, n, h := opts(name, help)
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: ns, Subsystem: sub, Name: n, Help: h}, []string{"bundle"})
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		ns, sub, n, h := opts(name, help)
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Subsystem: sub, Name: n, Help: h}, labels)
	}
	return &collectorSet{
		requests: counter("requests_total", "Requests decided, by bundle and reason; ok is allowed.", "bundle", "reason"),
		refused:  counter("bundles_refused_total", "Bundles that were not taken into use.", "bundle"),
		version:  gauge("bundle_version_seconds", "When the bundle in use was signed, as Unix time."),
		expires:  gauge("bundle_expires_seconds", "When the bundle in use expires, as Unix time."),
		keys:     gauge("bundle_keys", "Key records in the bundle in use."),
	}
})

type collectorSet struct {
	requests, refused      *prometheus.CounterVec
	version, expires, keys *prometheus.GaugeVec
}

func registerMetrics(registry *prometheus.Registry) {
	if registry == nil {
		return
	}
	c := collectors()
	for _, collector := range []prometheus.Collector{c.requests, c.refused, c.version, c.expires, c.keys} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(collector); err != nil && !errors.As(err, &already) {
			panic(err) // a programming error: the names are fixed
		}
	}
}

// edgeMetrics are one bundle's, looked up once.
type edgeMetrics struct {
	requests               [policy.NumReasons]prometheus.Counter
	refused                prometheus.Counter
	version, expires, keys prometheus.Gauge
}

func newEdgeMetrics(name string) *edgeMetrics {
	c := collectors()
	m := &edgeMetrics{
		refused: c.refused.WithLabelValues(name),
		version: c.version.WithLabelValues(name),
		expires: c.expires.WithLabelValues(name),
		keys:    c.keys.WithLabelValues(name),
	}
	for i := range m.requests {
		m.requests[i] = c.requests.WithLabelValues(name, policy.Reason(i).String())
	}
	return m
}
