package token

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/tokenkey"
	"github.com/keystile/keystile/policies"
)

func newBundle(t *testing.T) *control.Bundle {
	t.Helper()
	h, err := control.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	document, err := policies.Policy("vesuviopay")
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Init(t.Context(), control.NewBundle{Name: "shop", Audience: bundle.DefaultAudience, Policy: document, File: "vesuviopay"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryMake(b *control.Bundle) error {
	_, err := Make(b, "alice", map[string]string{"store_id": "s", "env": "test"}, time.Hour)
	return err
}

// A bundle knows the demo's key after Trust, and by nothing else; the key is its
// owner's alone.
func TestDemoKey(t *testing.T) {
	b := newBundle(t)
	if err := tryMake(b); err == nil || !strings.Contains(err.Error(), "--jwks customers=FILE") {
		t.Errorf("a token for a bundle without a key set: %v", err)
	}
	if _, err := os.Stat(keyPath(b)); err == nil || len(b.Policy.CustomerToken.Keys) > 0 {
		t.Error("a key was made")
	}
	for range 2 {
		if err := Trust(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := tryMake(b); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(keyPath(b)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(keyPath(b), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tryMake(b); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read signs: %v", err)
	}
}

// A key set from elsewhere stays, and no token is made for it.
func TestForeignKeySet(t *testing.T) {
	b := newBundle(t)
	want := b.Policy.CustomerToken
	key, err := tokenkey.New(want.Algorithm)
	if err != nil {
		t.Fatal(err)
	}
	set, err := tokenkey.JWKS(want.Algorithm, keyID, key.Public()) // even by the demo's name
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetKeySets(t.Context(), map[string][]byte{want.KeySet: set}); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"without a key of the demo's": func() error { return tryMake(b) },
		"trust":                       func() error { return Trust(t.Context(), b) },
		"with a key of the demo's":    func() error { return tryMake(b) },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "not the demo's") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
