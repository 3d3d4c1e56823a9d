package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/crashtest"
	"github.com/keystile/keystile/policies"
)

func TestFullCreate(t *testing.T)          { testFull(t, "create") }
func TestFullRevoke(t *testing.T)          { testFull(t, "revoke") }
func TestFullRenew(t *testing.T)           { testFull(t, "renew") }
func TestFullRestore(t *testing.T)         { testFull(t, "restore") }
func TestFullRotatePublisher(t *testing.T) { testFull(t, "rotate publisher") }
func TestFullRotateSigner(t *testing.T)    { testFull(t, "rotate signer") }

// testFull does a step on a disk that is full at each point of it. What was
// published stays whole and in force, the store has its keys, what the step says
// is true, and with space the step gets through.
func testFull(t *testing.T, name string) {
	t.Parallel()
	step := steps[name]
	openBundle := func(dir string) *Bundle {
		b, err := open(t, filepath.Join(dir, "home")).Bundle("default")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	id := func(dir string) string {
		raw, err := os.ReadFile(filepath.Join(dir, "id"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	var edge *bundle.Trust
	var last *bundle.Mark
	see := func(b *Bundle, err string) map[string]bundle.Status {
		t.Helper()
		opened, source, e := disk.OpenBundle(b.File(), edge)
		if e != nil {
			t.Fatalf("after %q: %v", err, e)
		}
		defer source.Close()
		if e := opened.CheckSuccession(last); e != nil {
			t.Errorf("after %q: %v", err, e)
		}
		last = &opened.Mark
		found := make(map[string]bundle.Status)
		if e := opened.Walk(func(r *bundle.Record) error { found[r.KeyID] = r.Status; return nil }); e != nil {
			t.Errorf("after %q: %v", err, e)
		}
		return found
	}
	crashtest.Full(t, func(dir string) {
		b := initBundle(t, open(t, filepath.Join(dir, "home")), "default")
		k, _ := create(t, b, NewKey{})
		for range 20 {
			if err := b.Publisher().change(ctx, func(tx store.Tx) error {
				k, _, err := b.Keyring().newKey(NewKey{Kind: "secret", Environment: "live"})
				if err != nil {
					return err
				}
				return tx.Insert(ctx, k)
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "id"), []byte(k.ID), 0o600); err != nil {
			t.Fatal(err)
		}
		var err error
		if edge, err = b.Trust(); err != nil {
			t.Fatal(err)
		}
		last = nil
		see(b, "")
		if err := b.home.Close(); err != nil {
			t.Fatal(err)
		}
	}, func(dir string) error {
		b, err := openQuietly(dir)
		if err != nil {
			return err
		}
		return step(b, id(dir))
	}, func(dir, said string) {
		b := openBundle(dir)
		before := len(see(b, said))
		if said != "" {
			if keys, err := b.Keyring().List(ctx); name != "restore" && (err != nil || len(keys) != 21 && !strings.Contains(said, "the change is in the key store")) {
				t.Errorf("after %q: %d keys, %v", said, len(keys), err)
			}
			if before != 21 {
				t.Errorf("after %q: %d keys are published", said, before)
			}
			if err := step(b, id(dir)); err != nil {
				t.Fatalf("with space, after %q: %v", said, err)
			}
		}
		got := see(b, said)
		if status := got[id(dir)]; name == "revoke" && status != bundle.Revoked || name != "revoke" && status != bundle.Active {
			t.Errorf("after %q: the key is %v", said, status)
		}
		if want := 21; len(got) != want && (name != "create" || len(got) != want+1) {
			t.Errorf("after %q: %d keys are published", said, len(got))
		}
		if left, _ := filepath.Glob(filepath.Join(b.dir, ".*.new")); len(left) > 0 {
			t.Errorf("after %q: %q are left", said, left)
		}
		if err := b.Publisher().CheckStore(ctx); err != nil {
			t.Errorf("after %q: %v", said, err)
		}
	})
}

// openQuietly is for a step's own process.
func openQuietly(dir string) (*Bundle, error) {
	h, err := Open(filepath.Join(dir, "home"))
	if err != nil {
		return nil, err
	}
	return h.Bundle("default")
}

// A bundle is made as a whole or not at all.
func TestFullInit(t *testing.T) {
	t.Parallel()
	crashtest.Full(t, func(string) {}, func(dir string) error {
		_, err := initIn(dir)
		return err
	}, func(dir, said string) {
		if said != "" {
			if found, _ := filepath.Glob(filepath.Join(dir, "home", "*default*")); len(found) > 0 {
				t.Errorf("after %q: %q", said, found)
			}
			if _, err := initIn(dir); err != nil {
				t.Fatalf("with space, after %q: %v", said, err)
			}
		}
		b, err := openQuietly(dir)
		if err != nil {
			t.Fatalf("after %q: %v", said, err)
		}
		defer b.home.Close()
		create(t, b, NewKey{})
		if left, _ := filepath.Glob(filepath.Join(dir, "home", ".init-*")); len(left) > 0 {
			t.Errorf("after %q: %q are left", said, left)
		}
	})
}

func initIn(dir string) (*Bundle, error) {
	h, err := Open(filepath.Join(dir, "home"))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Init(ctx, NewBundle{Name: "default", Audience: "default", Policy: defaultPolicy(), File: "default"})
}

// Packing and unpacking leave what is there, or put the whole bundle in its place.
func TestFullPack(t *testing.T) {
	testFullCopy(t, "copy.keystile", func(b *bundle.Bundle, compiled []byte, path string) error {
		return disk.WritePack(path, b, compiled)
	})
}

func TestFullUnpack(t *testing.T) {
	testFullCopy(t, "origin", func(b *bundle.Bundle, compiled []byte, path string) error {
		_, err := disk.WriteDir(path, b, compiled)
		return err
	})
}

func testFullCopy(t *testing.T, target string, write func(b *bundle.Bundle, compiled []byte, path string) error) {
	t.Parallel()
	copyOut := func(dir string) error {
		b, err := openQuietly(dir)
		if err != nil {
			return err
		}
		opened, source, err := b.OpenFile()
		if err != nil {
			return err
		}
		defer source.Close()
		return write(opened, source.Compiled, filepath.Join(dir, target))
	}
	crashtest.Full(t, func(dir string) {
		if _, err := initIn(dir); err != nil {
			t.Fatal(err)
		}
		if err := copyOut(dir); err != nil {
			t.Fatal(err)
		}
		b, err := openQuietly(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer b.home.Close()
		create(t, b, NewKey{})
	}, copyOut, func(dir, said string) {
		b, err := openQuietly(dir)
		if err != nil {
			t.Fatal(err)
		}
		see := func(want uint64) {
			t.Helper()
			opened, source, err := disk.OpenBundle(filepath.Join(dir, target), must(b.Trust()))
			if err != nil {
				t.Fatalf("after %q: %v", said, err)
			}
			defer source.Close()
			if err := opened.Walk(func(*bundle.Record) error { return nil }); err != nil || opened.Manifest.Keys != want {
				t.Errorf("after %q: %d keys, %v", said, opened.Manifest.Keys, err)
			}
		}
		if said != "" {
			see(0)
			if err := copyOut(dir); err != nil {
				t.Fatalf("with space, after %q: %v", said, err)
			}
		}
		see(1)
	})
}

func defaultPolicy() []byte { return must(policies.Policy("default")) }
