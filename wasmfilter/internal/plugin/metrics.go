package plugin

import "github.com/keystile/keystile/core/policy"

// Metrics are named "keystile.bundle.<bundle>.…": the stats_tags of README.md
// make labels of them for Prometheus. Requests are counted in memory and written
// out on the tick, since each call into the proxy costs.

func (g *guard) define(h Host) {
	prefix := "keystile.bundle." + g.name + "."
	for i := range g.counters {
		g.counters[i] = h.Counter(prefix + "reason." + policy.Reason(i).String() + ".requests_total")
	}
	g.version = h.Gauge(prefix + "bundle_version_seconds")
	g.expires = h.Gauge(prefix + "bundle_expires_seconds")
	g.keys = h.Gauge(prefix + "bundle_keys")
	g.inForce = h.Gauge(prefix + "bundle_in_force")
}

// tell writes out what has been counted since the last tick, and says in the log
// when requests begin to be denied, or cease to be.
func (g *guard) tell(h Host) {
	for i, n := range g.requests {
		if n > 0 {
			g.counters[i].Add(n)
			g.requests[i] = 0
		}
	}
	if b := g.verifier.Bundle(); b != nil {
		g.version.Set(b.Manifest.Version / 1000)
		g.expires.Set(b.Manifest.Expires / 1000)
		g.keys.Set(int64(b.Manifest.Keys))
	}
	status, inForce := "", int64(1)
	if err := g.verifier.Status(); err != nil {
		status, inForce = err.Error(), 0
	}
	g.inForce.Set(inForce)
	if status == g.status || g.starting() {
		return
	}
	g.status = status
	if status != "" {
		h.Log(Error, Line("every request is denied", "bundle", g.name, "error", status))
	} else {
		h.Log(Info, Line("requests are decided", "bundle", g.name))
	}
}

// startGrace is how long the first bundle may take before its absence is an error.
const startGrace = 2 * fetchTimeout

// starting says that the first bundle may still be on its way.
func (g *guard) starting() bool {
	if g.source == nil || g.verifier.Bundle() != nil {
		return false
	}
	now := g.source.now()
	if g.begun.IsZero() {
		g.begun = now
	}
	return now.Sub(g.begun) < startGrace
}
