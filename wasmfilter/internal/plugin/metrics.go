package plugin

import "github.com/keystile/keystile/core/policy"

// Metrics are named "keystile.bundle.<bundle>.…": the stats_tags of README.md
// make labels of them for Prometheus. Requests are counted in memory and written
// out on the tick, since each call into the proxy costs.

func (e *edge) define(h Host) {
	prefix := "keystile.bundle." + e.name + "."
	for i := range e.counters {
		e.counters[i] = h.Counter(prefix + "reason." + policy.Reason(i).String() + ".requests_total")
	}
	e.version = h.Gauge(prefix + "bundle_version_seconds")
	e.expires = h.Gauge(prefix + "bundle_expires_seconds")
	e.keys = h.Gauge(prefix + "bundle_keys")
	e.inForce = h.Gauge(prefix + "bundle_in_force")
}

// tell writes out what has been counted since the last tick, and says in the log
// when requests begin to be denied, or cease to be.
func (e *edge) tell(h Host) {
	for i, n := range e.requests {
		if n > 0 {
			e.counters[i].Add(n)
			e.requests[i] = 0
		}
	}
	if b := e.verifier.Bundle(); b != nil {
		e.version.Set(b.Manifest.Version / 1000)
		e.expires.Set(b.Manifest.Expires / 1000)
		e.keys.Set(int64(b.Manifest.Keys))
	}
	status, inForce := "", int64(1)
	if err := e.verifier.Status(); err != nil {
		status, inForce = err.Error(), 0
	}
	e.inForce.Set(inForce)
	if status == e.status || e.starting() {
		return
	}
	e.status = status
	if status != "" {
		h.Log(Error, Line("every request is denied", "bundle", e.name, "error", status))
	} else {
		h.Log(Info, Line("requests are decided", "bundle", e.name))
	}
}

// startGrace is how long the first bundle may take before its absence is an error.
const startGrace = 2 * fetchTimeout

// starting says that the first bundle may still be on its way.
func (e *edge) starting() bool {
	if e.source == nil || e.verifier.Bundle() != nil {
		return false
	}
	now := e.source.now()
	if e.begun.IsZero() {
		e.begun = now
	}
	return now.Sub(e.begun) < startGrace
}
