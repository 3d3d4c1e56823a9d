package caddymodule

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/keystile/keystile/core/bundle"
)

var renewalDue = gauge("bundle_renewal_due", "0 while the bundle in use is fresh, 1 once half of its life is gone, 2 once an hour is left: of a life of less than four hours, a quarter.")

// aging is how much renewal was due when that was last looked at.
type aging struct {
	version int64
	due     bundle.Due
}

// watchAge says once for each bundle that half of its life is gone, and once that
// it is near its end: then its renewals do not arrive, and there is time left to
// find out why.
func (g *guard) watchAge(now time.Time) {
	b := g.verifier.Bundle()
	if b == nil {
		return
	}
	is := aging{b.Manifest.Version, b.Due(now)}
	if is.version == g.age.version && is.due <= g.age.due {
		return
	}
	g.age = is
	left := b.Left(now).Round(time.Second)
	fields := []zap.Field{
		zap.String("bundle", g.name), zap.Int64("version", is.version), zap.Duration("left", left),
		zap.Time("expires", time.UnixMilli(b.Manifest.Expires)), zap.Duration("life", b.Life()),
	}
	switch {
	case left <= 0: // [edge.watchStatus] says that requests are denied
	case is.due == bundle.HalfGone:
		g.logger.Load().Warn("half of the bundle's life is gone: no renewal has arrived, see that `bundle renew` runs and that its file gets here", fields...)
	case is.due == bundle.NearEnd:
		g.logger.Load().Error("the bundle expires soon, and then every request is denied: renew it with `bundle renew`", fields...)
	}
}

// collectAge sends how much renewal of b is due.
func (g *guard) collectAge(ch chan<- prometheus.Metric, b *bundle.Bundle) {
	ch <- prometheus.MustNewConstMetric(renewalDue, prometheus.GaugeValue, float64(b.Due(time.Now())), g.name)
}
