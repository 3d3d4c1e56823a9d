package caddymodule

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/crashtest"
)

// An edge whose disk is full uses the bundle that a revocation is in, with an
// alarm, and keeps what it has remembered.
func TestFullState(t *testing.T) {
	var before bundle.Manifest
	dir := ""
	state := func() string { return filepath.Join(dir, "state") }
	crashtest.Full(t, func(d string) {
		dir = d
		h, b := fullBundle(t, dir)
		defer h.Close()
		e := fullEdge(t, dir, b)
		defer e.Destruct()
		if err := e.begin(); err != nil {
			t.Fatal(err)
		}
		before = e.verifier.Bundle().Manifest
		if _, err := b.Keyring().Revoke(t.Context(), must(b.Keyring().List(t.Context()))[0].ID); err != nil {
			t.Fatal(err)
		}
	}, func(d string) error {
		h := must(control.Open(filepath.Join(d, "home")))
		e := fullEdge(t, d, must(h.OpenWithoutPolicy("default")))
		e.start.Do(func() { close(e.stopped) }) // it looks when it is told to
		e.memory.writes = true
		if err := e.source.load(false, e.use); err != nil {
			return errors.New("the new bundle is not used: " + err.Error())
		}
		if e.memory.degraded.Load() != (e.memory.err != nil) {
			return errors.New("there is no alarm")
		}
		return e.memory.err
	}, func(_, said string) {
		h := must(control.Open(filepath.Join(dir, "home")))
		defer h.Close()
		b := must(h.OpenWithoutPolicy("default"))
		last, err := disk.NewState(state(), must(b.Trust())).Last()
		switch {
		case err != nil:
			t.Errorf("after %q: %v", said, err)
		case said == "" && last.Manifest.Version <= before.Version:
			t.Errorf("version %d is remembered, after %d", last.Manifest.Version, before.Version)
		case said != "" && last.Manifest.Version < before.Version:
			t.Errorf("after %q: it has forgotten %d for %d", said, before.Version, last.Manifest.Version)
		}
		if found, _ := filepath.Glob(filepath.Join(dir, ".state*")); said != "" && len(found) > 0 {
			t.Errorf("after %q: %q are left", said, strings.Join(found, " "))
		}
	})
}

// fullBundle is a bundle of one key.
func fullBundle(t *testing.T, dir string) (*control.Home, *control.Bundle) {
	t.Helper()
	h := must(control.Open(filepath.Join(dir, "home")))
	b := initDefault(t, h, "default", 0)
	if _, _, err := b.Keyring().Create(t.Context(), control.NewKey{Kind: "secret", Environment: "live"}); err != nil {
		t.Fatal(err)
	}
	return h, b
}

func fullEdge(t *testing.T, dir string, b *control.Bundle) *guard {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return testGuard(t, b, filepath.Join(dir, "state"), nil)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
