package control

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keystile/keystile/core/bundle"
)

// A file system that is full, where the test may mount one: a key is made and
// revoked, or the error says that the disk is full and nothing has changed.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("keystile", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no file system can be mounted here (%v): the other tests of full disks do without", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	b := initBundle(t, open(t, filepath.Join(dir, "home")), "default")
	k, _ := create(t, b, NewKey{})
	filler := filepath.Join(dir, "filler")
	want := published(t, b)
	whole := false
	for free := int64(0); !whole; free += 4 << 10 {
		b = reopen(t, b, func(string) { fill(t, filler, free) })
		fresh, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
		whole = err == nil
		switch {
		case whole:
			want[fresh.ID] = bundle.Active
			_, err = b.Keyring().Revoke(ctx, k.ID)
			if whole = err == nil; whole {
				want[k.ID] = bundle.Revoked
			}
		case !strings.Contains(err.Error(), "no space left") && !strings.Contains(err.Error(), "disk is full") && !strings.Contains(err.Error(), "is the disk full?"):
			t.Errorf("with %d bytes: %v", free, err)
		}
		if got := published(t, b); len(got) != len(want) || got[k.ID] != want[k.ID] {
			t.Errorf("with %d bytes, after %v: %d keys are published, not %d", free, err, len(got), len(want))
		}
		os.Remove(filler)
		keys, err := b.Keyring().List(ctx)
		if err != nil || len(keys) != len(want) {
			t.Errorf("with %d bytes: the store has %d keys, not %d, %v", free, len(keys), len(want), err)
		}
		if err := b.Publisher().CheckStore(ctx); err != nil {
			t.Errorf("with %d bytes: %v", free, err)
		}
	}
}

// fill leaves so many bytes of a file system free.
func fill(t *testing.T, path string, free int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for page := make([]byte, 4<<10); ; {
		n, err := f.Write(page)
		if size += int64(n); err != nil {
			break
		}
	}
	if err := f.Truncate(max(0, size-free)); err != nil {
		t.Fatal(err)
	}
}
