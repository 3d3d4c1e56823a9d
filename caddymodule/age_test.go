package caddymodule

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/policies"
)

// A bundle whose renewals do not arrive is told twice while it lives, once each,
// in the log and as a metric.
func TestAge(t *testing.T) {
	for life, at := range map[time.Duration][2]time.Duration{ // when half is gone, and when it is near its end
		24 * time.Hour:     {12 * time.Hour, 23 * time.Hour},
		7 * 24 * time.Hour: {84 * time.Hour, 167 * time.Hour},
		4 * time.Hour:      {2 * time.Hour, 3 * time.Hour},
		2 * time.Hour:      {time.Hour, 90 * time.Minute},
		12 * time.Minute:   {6 * time.Minute, 9 * time.Minute},
	} {
		t.Run(life.String(), func(t *testing.T) {
			e, b, logs := agingEdge(t, control.Life(life))
			look := func(since time.Duration) string {
				e.watchAge(time.UnixMilli(e.verifier.Bundle().Manifest.Version).Add(since))
				out := ""
				for _, entry := range logs.TakeAll() {
					out += entry.Level.String() + " "
				}
				return out
			}
			for _, step := range []struct {
				since time.Duration
				want  string
			}{
				{0, ""},
				{at[0] - time.Second, ""},
				{at[0], "warn "},
				{at[0] + time.Second, ""},
				{at[1] - time.Second, ""},
				{at[1], "error "},
				{at[1] + time.Second, ""},
				{life, ""},
			} {
				if got := look(step.since); got != step.want {
					t.Errorf("after %v: %q, not %q", step.since, got, step.want)
				}
			}
			if err := b.Publisher().Renew(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			e.look(false)
			logs.TakeAll()
			if got := look(0) + look(at[0]-time.Second) + look(at[1]); got != "error " {
				t.Errorf("after a renewal: %q", got)
			}
		})
	}
}

func TestRenewalDue(t *testing.T) {
	e, _, _ := agingEdge(t, 0)
	now := e.verifier.Bundle().Mark
	for gone, want := range map[time.Duration]float64{0: 0, 13 * time.Hour: 1, 23*time.Hour + time.Minute: 2, 25 * time.Hour: 2} {
		b := &bundle.Bundle{Mark: now}
		b.Manifest.Version -= gone.Milliseconds()
		b.Manifest.Expires -= gone.Milliseconds()
		registry := prometheus.NewRegistry()
		registry.MustRegister(ageOf{e, b})
		got, err := registry.Gather()
		if err != nil || got[0].GetName() != "caddy_keystile_bundle_renewal_due" || got[0].Metric[0].GetGauge().GetValue() != want {
			t.Errorf("after %v: %v, not %v, %v", gone, got, want, err)
		}
	}
	described := make(chan *prometheus.Desc, 20)
	gauges{}.Describe(described)
	collected := make(chan prometheus.Metric, 200)
	gauges{}.Collect(collected)
	close(described)
	close(collected)
	names, values := "", ""
	for d := range described {
		names += fmt.Sprint(d)
	}
	for m := range collected {
		values += fmt.Sprint(m.Desc())
	}
	for _, list := range []string{names, values} {
		if want := fmt.Sprint(renewalDue); !strings.Contains(list, want) {
			t.Errorf("%s is not in %s", want, list)
		}
	}
}

// ageOf collects the age of one bundle alone.
type ageOf struct {
	e *guard
	b *bundle.Bundle
}

func (a ageOf) Describe(ch chan<- *prometheus.Desc) { ch <- renewalDue }
func (a ageOf) Collect(ch chan<- prometheus.Metric) { a.e.collectAge(ch, a.b) }

// agingEdge is an edge of a bundle of the given life, with what it logs.
func agingEdge(t *testing.T, life control.Life) (*guard, *control.Bundle, *observer.ObservedLogs) {
	t.Helper()
	h, err := control.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	b := initDefault(t, h, "aging", life)
	seen, logs := observer.New(zap.WarnLevel)
	e := testGuard(t, b, filepath.Join(t.TempDir(), "state"), seen)
	t.Cleanup(func() { e.Destruct() })
	return e, b, logs
}

func initDefault(t *testing.T, h *control.Home, name string, life control.Life) *control.Bundle {
	t.Helper()
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Init(t.Context(), control.NewBundle{Name: name, Audience: bundle.DefaultAudience, Policy: document, File: "default", Life: life})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testGuard is an edge that has not begun. It logs to core, or nowhere.
func testGuard(t *testing.T, b *control.Bundle, state string, core zapcore.Core) *guard {
	t.Helper()
	c := &resolved{
		Name: b.Name, Signers: b.Signers, State: state,
		Bundle: Bundle{File: b.File(), Audience: bundle.DefaultAudience, Threshold: 1},
	}
	e, err := newGuard(c, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	return e
}
