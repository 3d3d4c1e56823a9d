package control

import (
	"os"
	"testing"

	"github.com/keystile/keystile/core/bundle"
)

// R56: what a publisher signed whom the policy note in force no longer lists counts for
// nothing, for `keys restore` too (SECURITY.md, "A publisher's key that was stolen").
func TestRestoreFromStolenPublisher(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	create(t, b, NewKey{Kind: "secret", Environment: "live"})
	stolen := t.TempDir()
	if err := os.CopyFS(stolen, os.DirFS(b.home.dir)); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{signerFile, standbyFile, publisherFile} { // CopyFS opens them to others
		if err := os.Chmod(stolen+"/"+b.Name+"/"+f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.RotatePublisher(t.Context()); err != nil {
		t.Fatal(err)
	}
	thief := must(open(t, stolen).Bundle(b.Name))
	evil, _ := create(t, thief, NewKey{Kind: "secret", Environment: "live"})
	_, err := b.Keyring().Restore(t.Context(), thief.File())
	if status, there := published(t, b)[evil.ID]; there && status == bundle.Active {
		t.Errorf("restore (%v) published a key that the stolen publisher's key signed after it was replaced", err)
	}
}

// A directory that is configured and cannot be read is no leave to publish from an
// older home.
func TestOlderHomeWithUnreadableDirectory(t *testing.T) {
	dir := t.TempDir()
	h := open(t, t.TempDir())
	b := initBundle(t, h, "default")
	b.Directory = dir
	if err := b.Settings.write(b.dir); err != nil {
		t.Fatal(err)
	}
	key, _ := create(t, b, NewKey{Kind: "secret", Environment: "live"})
	b = reopen(t, b, func(string) {}) // nothing stays in the store's log
	back := copyOf(t, b, storeFiles(b.home.dir)[0], b.File())
	if _, err := b.Keyring().Revoke(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(dir+"/v1/manifest", 0); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, back)
	err := b.Publisher().Build(t.Context())
	if published(t, b)[key.ID] != bundle.Revoked && err == nil {
		t.Error("a key that was revoked is published as active, and nothing is said of the directory that cannot be read")
	}
}
