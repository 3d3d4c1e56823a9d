package control

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/crashtest"
)

// steps are what a publisher does to a bundle of one key.
var steps = map[string]func(b *Bundle, key string) error{
	"create": func(b *Bundle, _ string) error {
		_, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
		return err
	},
	"revoke": func(b *Bundle, key string) error { _, err := b.Keyring().Revoke(ctx, key); return err },
	"renew":  func(b *Bundle, _ string) error { return b.Publisher().Renew(ctx, 0) },
	"restore": func(b *Bundle, _ string) error {
		for _, f := range storeFiles(b.home.dir) { // it is gone
			os.Remove(f)
		}
		_, err := b.Keyring().Restore(ctx, "")
		return err
	},
	"rotate publisher": func(b *Bundle, _ string) error { return b.RotatePublisher(ctx) },
	"rotate signer":    func(b *Bundle, _ string) error { return b.RotateSigner(ctx, "") },
}

func TestCrashRestore(t *testing.T)         { testCrash(t, "restore") }
func TestCrashCreate(t *testing.T)          { testCrash(t, "create") }
func TestCrashRevoke(t *testing.T)          { testCrash(t, "revoke") }
func TestCrashRenew(t *testing.T)           { testCrash(t, "renew") }
func TestCrashRotatePublisher(t *testing.T) { testCrash(t, "rotate publisher") }
func TestCrashRotateSigner(t *testing.T)    { testCrash(t, "rotate signer") }

// testCrash kills a publisher (SIGKILL) at each point of a step. Whatever is left
// is believed by the edges of before, the next try gets through, and no edge ever
// meets a version that another text was signed under.
func testCrash(t *testing.T, name string) {
	t.Parallel() // most of it is waiting for disks
	step := steps[name]
	openHome := func(dir string) (*Home, *Bundle) {
		h, err := Open(filepath.Join(dir, "home"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := h.Bundle("default")
		if err != nil {
			t.Fatal(err)
		}
		return h, b
	}
	readID := func(dir string) string {
		id, err := os.ReadFile(filepath.Join(dir, "id"))
		if err != nil {
			t.Fatal(err)
		}
		return string(id)
	}
	var edge *bundle.Trust // as configured before the step
	var last *bundle.Mark
	crashtest.Each(t, func(dir string) {
		h := open(t, filepath.Join(dir, "home"))
		b := initBundle(t, h, "default")
		b.Directory = filepath.Join(dir, "origin")
		if err := b.Settings.write(b.dir); err != nil {
			t.Fatal(err)
		}
		k, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "id"), []byte(k.ID), 0o600); err != nil {
			t.Fatal(err)
		}
		if edge, err = b.Trust(); err != nil {
			t.Fatal(err)
		}
		opened, source, err := disk.OpenBundle(b.File(), edge)
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		last = &opened.Mark
	}, func(dir string) error {
		_, b := openHome(dir)
		return step(b, readID(dir))
	}, func(dir, point string) {
		h, b := openHome(dir)
		defer h.Close()
		see := func(path string) {
			t.Helper()
			opened, source, err := disk.OpenBundle(path, edge)
			if err != nil {
				t.Fatalf("%s: %v", point, err)
			}
			defer source.Close()
			if err := opened.Walk(func(*bundle.Record) error { return nil }); err != nil {
				t.Errorf("%s: %v", point, err)
			}
			if err := opened.CheckSuccession(last); err != nil {
				t.Errorf("%s: %v", point, err)
			}
			last = &opened.Mark
		}
		see(b.File())
		if point != crashtest.None {
			if err := step(b, readID(dir)); err != nil {
				t.Fatalf("%s, again: %v", point, err)
			}
		}
		see(b.File())
		see(b.Directory)
		if name == "revoke" && published(t, b)[readID(dir)] != bundle.Revoked {
			t.Errorf("%s: the key is not revoked", point)
		}
		b, err := h.Bundle("default") // as the next command opens it
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publisher().Build(ctx); err != nil {
			t.Fatalf("%s, and a build: %v", point, err)
		}
		see(b.File())
		for _, left := range []string{nextPublisherFile, nextStandbyFile} {
			if _, err := os.Stat(b.path(left)); err == nil {
				t.Errorf("%s: %s is left", point, left)
			}
		}
		if opened, source, err := b.OpenFile(); err != nil {
			t.Errorf("%s: the home does not believe itself: %v", point, err)
		} else {
			source.Close()
			if opened.Manifest.Version != last.Manifest.Version {
				t.Errorf("%s: version %d, not %d", point, opened.Manifest.Version, last.Manifest.Version)
			}
		}
	})
}
