package control

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/control/store/sqlstore"
	"github.com/keystile/keystile/internal/crash"
	"github.com/keystile/keystile/internal/disk"
)

// storeFiles are the files of a home's store.
func storeFiles(dir string) []string {
	path := filepath.Join(dir, storeFile)
	return []string{path, path + "-wal", path + "-shm"}
}

// reopen closes a home and opens its bundle anew, as the next command does; with
// files that swap changes meanwhile.
func reopen(t *testing.T, b *Bundle, swap func(dir string)) *Bundle {
	t.Helper()
	if err := b.home.Close(); err != nil {
		t.Fatal(err)
	}
	swap(b.home.dir)
	h := open(t, b.home.dir)
	h.now = b.home.now
	again, err := h.Bundle(b.Name)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// copyOf reads files of a home and returns what puts them back.
func copyOf(t *testing.T, b *Bundle, files ...string) (putBack func(string)) {
	t.Helper()
	kept := make(map[string][]byte)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		kept[f] = raw
	}
	return func(string) {
		for _, f := range storeFiles(b.home.dir)[1:] {
			os.Remove(f)
		}
		for f, raw := range kept {
			if err := os.WriteFile(f, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func create(t *testing.T, b *Bundle, n NewKey) (*Key, *credential.Digest) {
	t.Helper()
	if n.Kind == "" {
		n.Kind, n.Environment = "secret", "live"
	}
	k, secret, err := b.Keyring().Create(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	d := secret.Digest()
	return k, &d
}

// record is what edges read of a key.
func record(t *testing.T, b *Bundle, d *credential.Digest) string {
	t.Helper()
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	r, _, err := opened.Find(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%+v", *r)
}

// A store that was put back from an older copy publishes nothing that edges have
// unlearned since; restoring takes it over, to the byte.
func TestOlderStore(t *testing.T) {
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for name, tt := range map[string]struct {
		change func(b *Bundle, id string) error
		want   string // in the error; "" for a store that is as good
	}{
		"a key more": {func(b *Bundle, _ string) error {
			_, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
			return err
		}, "1 keys are missing"},
		"a key revoked": {func(b *Bundle, id string) error { _, err := b.Keyring().Revoke(ctx, id); return err }, "1 keys are not revoked"},
		"a key rolled": {func(b *Bundle, id string) error {
			_, err := b.Keyring().Roll(ctx, id, Roll{})
			return err
		}, "1 keys are missing, 1 keys are not deprecated"},
		"a key that ends": {func(b *Bundle, id string) error {
			return b.Publisher().change(ctx, func(tx store.Tx) error { return tx.SetStatus(ctx, id, active, &end, nil) })
		}, "1 keys end later"},
		"a renewal": {func(b *Bundle, _ string) error { return b.Publisher().Renew(ctx, 0) }, ""},
		"a build":   {func(b *Bundle, _ string) error { return b.Publisher().Build(ctx) }, ""},
	} {
		for where, clear := range map[string]func(b *Bundle){
			"": func(*Bundle) {},
			", known from the directory": func(b *Bundle) {
				if err := os.Remove(b.File()); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(name+where, func(t *testing.T) {
				b := initBundle(t, open(t, t.TempDir()), "default")
				b.Directory = filepath.Join(t.TempDir(), "origin")
				if err := b.Settings.write(b.dir); err != nil {
					t.Fatal(err)
				}
				k, digest := create(t, b, NewKey{})
				b = reopen(t, b, func(string) {})
				b.home.Close()
				putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
				b = reopen(t, b, func(string) {})
				if err := tt.change(b, k.ID); err != nil {
					t.Fatal(err)
				}
				before := record(t, b, digest)
				clear(b)
				b = reopen(t, b, putBack)
				_, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
				if tt.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if !errors.Is(err, ErrStoreBehind) || !strings.Contains(err.Error(), tt.want+" in the key store") {
					t.Fatalf("a key was made: %v", err)
				}
				if _, err := os.Stat(b.File()); where != "" && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("something was written: %v", err)
				}
				if _, err := b.Keyring().Restore(ctx, ""); err != nil {
					t.Fatal(err)
				}
				if got := record(t, b, digest); got != before {
					t.Errorf("restored: %s, not %s", got, before)
				}
				create(t, b, NewKey{})
				if err := b.Publisher().CheckStore(ctx); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A store that knows more than what is published is as good: a crash has come
// between the two, or the file is an older copy.
func TestOlderFile(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, digest := create(t, b, NewKey{})
	putBack := copyOf(t, b, b.File())
	if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, putBack)
	if err := b.Publisher().CheckStore(ctx); err == nil || !strings.Contains(err.Error(), "changes that are not published") {
		t.Errorf("the store has a revocation more: %v", err)
	}
	for name, step := range map[string]func() error{
		"build": func() error { return b.Publisher().Build(ctx) },
		"renew": func() error { return b.Publisher().Renew(ctx, 0) }, // not of what is older
	} {
		b = reopen(t, b, putBack)
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if got := record(t, b, digest); !strings.Contains(got, "Status:revoked") {
			t.Errorf("%s: published: %s", name, got)
		}
	}
	// Without the store, the directory knows.
	b.Directory = filepath.Join(t.TempDir(), "origin")
	if err := b.Settings.write(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Publisher().Build(ctx); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, func(dir string) {
		putBack(dir)
		os.Remove(storeFiles(dir)[0])
	})
	if err := b.Publisher().Renew(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if got := record(t, b, digest); !strings.Contains(got, "Status:revoked") {
		t.Errorf("renewed: %s", got)
	}
}

// What a restored key has is what the bundle tells of it.
func TestRestoredKey(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "example")
	end, begin := time.Now().Add(48*time.Hour).UTC().Truncate(time.Second), time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	old, digest := create(t, b, NewKey{
		Name: "n", Kind: "secret", Environment: "live", Tenant: "acct_1", Expires: &end, NotBefore: &begin,
		IPs: []string{"192.0.2.0/24", "2001:db8::1"}, Referrers: []string{"https://a.example"}, Endpoints: []string{"GET /v1/users"},
	})
	before := record(t, b, digest)
	b = reopen(t, b, func(dir string) {
		for _, f := range storeFiles(dir) {
			os.Remove(f)
		}
	})
	if r, err := b.Keyring().Restore(ctx, ""); err != nil || r.Keys != 1 || r.Changed != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := record(t, b, digest); got != before {
		t.Errorf("%s\nnot %s", got, before)
	}
	k, err := b.Keyring().Show(ctx, old.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !k.Created.IsZero() || k.Name != "" || k.Hint != "" || k.Status != active || !k.Expires.Equal(end) || !k.NotBefore.Equal(begin) {
		t.Errorf("%+v", k)
	}
	if r, err := b.Keyring().Restore(ctx, ""); err != nil || r != (Restored{}) {
		t.Errorf("restored again: %+v, %v", r, err)
	}
}

// The policy note in force is a later one than the older store's, and its signers
// are elsewhere: what is published next is under it all the same.
func TestOlderStoreFollowsThePolicyNote(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	create(t, b, NewKey{})
	b = reopen(t, b, func(string) {})
	b.home.Close()
	putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
	b = reopen(t, b, func(string) {})
	if err := b.RotatePublisher(ctx); err != nil {
		t.Fatal(err)
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	source.Close()
	b = reopen(t, b, putBack)
	if err := os.Remove(b.path(signerFile)); err != nil { // as if elsewhere
		t.Fatal(err)
	}
	create(t, b, NewKey{})
	after, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	source.Close()
	if err := after.CheckSuccession(&opened.Mark); err != nil {
		t.Error(err)
	}
}

// A store of a program before this one has no root; it is not taken for a lost
// one, and an older copy of it is noticed.
func TestStoreWithoutRoot(t *testing.T) {
	forget := func(t *testing.T, b *Bundle) *Bundle {
		return reopen(t, b, func(string) {
			inStore(t, b, `DROP TABLE goose_db_version; DROP TABLE nodes; DROP TABLE history;
				ALTER TABLE published DROP COLUMN root; ALTER TABLE published DROP COLUMN keys; ALTER TABLE published DROP COLUMN expires`)
		})
	}
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, _ := create(t, b, NewKey{})
	b = forget(t, b)
	if err := b.Publisher().CheckStore(ctx); err != nil {
		t.Error(err)
	}
	if err := b.Publisher().Build(ctx); err != nil {
		t.Fatal(err)
	}
	b = forget(t, b)
	b.home.Close()
	putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
	b = reopen(t, b, func(string) {})
	if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, putBack)
	if err := b.Publisher().Build(ctx); !errors.Is(err, ErrStoreBehind) {
		t.Errorf("a key works again: %v", err)
	}
}

// Signers that an operator has replaced by hand do not make the store an old one.
func TestSignersReplacedByHand(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	create(t, b, NewKey{})
	if err := b.Publisher().Renew(ctx, 0); err != nil { // the store does not know its version
		t.Fatal(err)
	}
	if err := os.Remove(b.path(signerFile)); err != nil {
		t.Fatal(err)
	}
	verifier, err := NewSigningKey(b.path(signerFile), "other")
	if err != nil {
		t.Fatal(err)
	}
	b.Signers = []string{verifier}
	if err := b.Settings.write(b.dir); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, func(string) {})
	create(t, b, NewKey{})
	if got := published(t, b); len(got) != 2 {
		t.Errorf("published: %v", got)
	}
}

// Renewing comes after the file's version whatever the clock says, needs no store,
// and the store publishes above it.
func TestRenewWithoutStore(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	create(t, b, NewKey{})
	version := func() int64 {
		opened, source, err := b.OpenFile()
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		return opened.Manifest.Version
	}
	b.home.Close()
	putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
	b = reopen(t, b, func(dir string) {
		for _, f := range storeFiles(dir) {
			os.Remove(f)
		}
	})
	clock := time.Now()
	b.home.now = func() time.Time { return clock }
	if err := b.Publisher().Renew(ctx, 0); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{0, time.Second, -50 * time.Second} {
		clock = clock.Add(step)
		before := version()
		if err := b.Publisher().Renew(ctx, 0); err != nil || version() <= before {
			t.Errorf("after %v: version %d after %d, %v", step, version(), before, err)
		}
	}
	if _, err := os.Stat(storeFiles(b.home.dir)[0]); err == nil {
		t.Error("renewing made a store")
	}
	if err := b.Publisher().CheckStore(ctx); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Error(err)
	}
	b = reopen(t, b, putBack)
	if err := b.Publisher().CheckStore(ctx); err != nil {
		t.Errorf("the store is as good as before: %v", err)
	}
	before := version()
	create(t, b, NewKey{})
	if version() <= before {
		t.Errorf("version %d after %d", version(), before)
	}
}

// Two commands publish one after the other, whenever the second one begins: the
// older file never takes the place of the later one.
func TestOneAfterTheOther(t *testing.T) {
	defer func(wait time.Duration, at func(string)) { lockWait, crash.At = wait, at }(lockWait, crash.At)
	for name, step := range map[string]func(b *Bundle, id string) error{
		"a revocation": func(b *Bundle, id string) error { _, err := b.Keyring().Revoke(ctx, id); return err },
		"a renewal":    func(b *Bundle, _ string) error { return b.Publisher().Renew(ctx, 0) },
	} {
		for _, point := range []string{"signed", "written", "committed", "renamed"} {
			t.Run(name+", "+point, func(t *testing.T) {
				dir := t.TempDir()
				b := initBundle(t, open(t, dir), "default")
				k, _ := create(t, b, NewKey{})
				other, err := open(t, dir).OpenWithoutPolicy("default")
				if err != nil {
					t.Fatal(err)
				}
				waited := false
				crash.At = func(p string) {
					if p == point && !waited {
						waited = true
						lockWait = time.Millisecond
						if err := step(other, k.ID); err == nil || !strings.Contains(err.Error(), "another command") {
							t.Errorf("it did not wait: %v", err)
						}
						lockWait = time.Minute
					}
				}
				fresh, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
				crash.At = func(string) {}
				if err != nil || !waited {
					t.Fatal(err)
				}
				if err := step(other, k.ID); err != nil {
					t.Fatal(err)
				}
				if got := published(t, b); got[fresh.ID] != bundle.Active || name == "a revocation" && got[k.ID] != bundle.Revoked {
					t.Errorf("published: %v", got)
				}
			})
		}
	}
}

// A key past its end cannot be rolled into one without.
func TestRollExpired(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	k, _ := create(t, b, NewKey{Kind: "secret", Environment: "live", Expires: &end})
	b.home.now = func() time.Time { return end }
	if _, err := b.Keyring().Roll(ctx, k.ID, Roll{}); err == nil || !strings.Contains(err.Error(), "is expired and cannot be rolled") {
		t.Errorf("a key that has expired was rolled: %v", err)
	}
}

// Nobody but the owner gets at keys and at the store, whatever the umask.
func TestPrivateFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "home")
	b := initBundle(t, open(t, dir), "vesuviopay")
	if err := b.RotateSigner(ctx, ""); err != nil {
		t.Fatal(err)
	}
	private := append(storeFiles(dir), b.path(signerFile), b.path(standbyFile), b.path(publisherFile))
	for _, f := range private {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for _, f := range []string{b.File(), b.TrustFile(), b.path(settingsFile), b.path(policyFile)} { // edges, of other users, read them
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	// A store of before is closed to others when it is opened; a key that others
	// can read may have been read, and is not used.
	b.home.Close()
	for _, f := range private {
		if err := os.Chmod(f, 0o644); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	b = reopen(t, b, func(string) {})
	if _, err := b.Keyring().List(ctx); err != nil {
		t.Fatal(err)
	}
	for _, f := range storeFiles(dir) {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o620} {
		if err := os.Chmod(b.path(publisherFile), mode); err != nil {
			t.Fatal(err)
		}
		if err := b.Publisher().Renew(ctx, 0); err == nil || !strings.Contains(err.Error(), "chmod 600 "+b.path(publisherFile)) {
			t.Errorf("a key of mode %v signs: %v", mode, err)
		}
	}
	if err := os.Chmod(b.path(publisherFile), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := b.Publisher().Renew(ctx, 0); err != nil {
		t.Error(err)
	}
}

// A bundle lives as long as it was made for, also renewed by its file alone.
func TestLife(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	life := func() time.Duration {
		opened, source, err := disk.OpenBundle(b.File(), must(b.Trust()))
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		return opened.Life()
	}
	if life() != bundle.DefaultLife {
		t.Errorf("%v", life())
	}
	if err := b.SetLife(Life(bundle.MaxLife)); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, func(string) {})
	for name, step := range map[string]func() error{
		"build": func() error { return b.Publisher().Build(ctx) },
		"create": func() error {
			_, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
			return err
		},
	} {
		if err := step(); err != nil || life() != bundle.MaxLife {
			t.Errorf("%s: %v, %v", name, life(), err)
		}
	}
	b.Life = 0 // the file alone says it
	if err := b.Publisher().Renew(ctx, 0); err != nil || life() != bundle.MaxLife {
		t.Errorf("renewed: %v, %v", life(), err)
	}
	if err := b.Publisher().Renew(ctx, Life(time.Hour)); err != nil || life() != time.Hour {
		t.Errorf("renewed for an hour: %v, %v", life(), err)
	}
	for text, good := range map[string]bool{"10m": true, "168h": true, "7d": true, "9m59s": false, "169h": false, "-24h": false, "1w": false, "": false} {
		var l Life
		if err := l.UnmarshalText([]byte(text)); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A store that is looked at while keys are made is not taken for an older copy.
func TestCheckStoreWhileKeysAreMade(t *testing.T) {
	dir := t.TempDir()
	b := initBundle(t, open(t, dir), "default")
	other, err := open(t, dir).Bundle("default") // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 30 {
			if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"}); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if err := other.Publisher().CheckStore(ctx); errors.Is(err, ErrStoreBehind) {
			t.Errorf("nothing is missing: %v", err)
		}
		select {
		case <-ended:
			return
		default:
		}
	}
}

// A directory that was put back from an older copy is not renewed in the place of
// the later file.
func TestOlderDirectory(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, digest := create(t, b, NewKey{})
	b.Directory = filepath.Join(t.TempDir(), "origin")
	if err := b.Settings.write(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Publisher().Build(ctx); err != nil {
		t.Fatal(err)
	}
	older := filepath.Join(t.TempDir(), "older")
	if err := os.CopyFS(older, os.DirFS(b.Directory)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, func(dir string) {
		os.RemoveAll(b.Directory)
		os.CopyFS(b.Directory, os.DirFS(older))
		for _, f := range storeFiles(dir) {
			os.Remove(f)
		}
	})
	if err := b.Publisher().Renew(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if got := record(t, b, digest); !strings.Contains(got, "Status:revoked") {
		t.Errorf("renewed: %s", got)
	}
}

// inStore gives SQL to the store of b's home.
func inStore(t *testing.T, b *Bundle, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", b.home.storeFile())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

// publishRecord puts a bundle of one record in the place of the published one.
func publishRecord(t *testing.T, b *Bundle, r bundle.Record) {
	t.Helper()
	opened, err := b.home.store()
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Update(ctx, b.Name, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		if err != nil {
			return err
		}
		p := b.Publisher()
		note, err := p.nextPublication(last)
		if err != nil {
			return err
		}
		var nodes bundle.Nodes
		tree, err := bundle.Build([]bundle.Record{r}, nodes.Add)
		if err != nil {
			return err
		}
		s, err := p.seal(note, last.Version, b.lifetime(), tree, nodes.Each)
		if err != nil {
			return err
		}
		staged, err := p.stage(ctx, s)
		if err != nil {
			return err
		}
		return staged.Place(ctx)
	}); err != nil {
		t.Fatal(err)
	}
}

// What the store cannot hold is not restored as if it were less.
func TestRestoreRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*bundle.Record)
		want   string
	}{
		"limits": {func(r *bundle.Record) {
			r.KeyID, r.Digest[0] = "key_other", r.Digest[0]^1
			r.Limits = []policy.Limit{{Requests: 1, Window: time.Second}}
		}, "has limits"},
		"another ID": {func(r *bundle.Record) { r.KeyID = "key_other" }, "is of another bundle"},
	} {
		b := initBundle(t, open(t, t.TempDir()), "default")
		_, digest := create(t, b, NewKey{})
		r := bundle.Record{Digest: *digest, KeyID: "key_1", Kind: "secret", Environment: "live", Status: bundle.Active}
		tt.change(&r)
		publishRecord(t, b, r)
		if got, err := b.Keyring().Restore(ctx, ""); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A store of before, whose root nobody knows, stops no renewal.
func TestRenewBesideAStoreWithoutRoot(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	b.home.Close()
	putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
	b = reopen(t, b, func(string) {})
	create(t, b, NewKey{})
	b = reopen(t, b, putBack)
	inStore(t, b, `UPDATE published SET root = NULL, version = version + 20000`)
	if err := b.Publisher().Renew(ctx, 0); err != nil {
		t.Error(err)
	}
}

// An end that is taken over changes nothing of a key's status.
func TestRestoredEndOfARevokedKey(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, digest := create(t, b, NewKey{})
	if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	publishRecord(t, b, bundle.Record{Digest: *digest, KeyID: k.ID, Kind: "secret", Environment: "live", Status: bundle.Active, Expires: time.Now().Add(time.Hour).Unix()})
	if r, err := b.Keyring().Restore(ctx, ""); err != nil || r.Changed != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := record(t, b, digest); !strings.Contains(got, "Status:revoked") {
		t.Errorf("published: %s", got)
	}
}

// The life that is given to a renewal is that of what it publishes, too.
func TestLifeOfARenewalOfTheStore(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, _ := create(t, b, NewKey{})
	putBack := copyOf(t, b, b.File())
	if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b, putBack)
	if err := b.Publisher().Renew(ctx, Life(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if opened.Life() != 2*time.Hour {
		t.Errorf("it lives for %v", opened.Life())
	}
}

// A store that is empty or damaged is not one without keys, and the error says how
// to mend it.
func TestRuinedStore(t *testing.T) {
	for content, want := range map[string]string{"": "is empty: put a copy", strings.Repeat("garbage ", 1000): "move it away"} {
		b := initBundle(t, open(t, t.TempDir()), "default")
		k, _ := create(t, b, NewKey{})
		ruin := func(dir string) {
			for _, f := range storeFiles(dir) {
				os.Remove(f)
			}
			if err := os.WriteFile(filepath.Join(dir, storeFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b = reopen(t, b, ruin)
		if keys, err := b.Keyring().List(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("listed: %v, %v", keys, err)
		}
		if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("created: %v", err)
		}
		if content != "" {
			b = reopen(t, b, func(dir string) { os.Remove(filepath.Join(dir, storeFile)) })
		}
		if n, err := b.Keyring().Restore(ctx, ""); err != nil || n.Keys != 1 {
			t.Errorf("restored: %+v, %v", n, err)
		}
		if _, err := b.Keyring().Show(ctx, k.ID); err != nil {
			t.Error(err)
		}
	}
}

// What SQLite keeps beside the store says as much as the store.
func TestFilesBesideTheStore(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	create(t, b, NewKey{})
	files := storeFiles(b.home.dir)
	for _, f := range files {
		if err := os.Chmod(f, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sqlstore.MakeSQLite(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

// A publisher's key that no policy note lists yet does not take the place of the one
// that signs: nothing could be published any more.
func TestNextPublisherWaits(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	if err := os.Remove(b.path(signerFile)); err != nil { // as if elsewhere
		t.Fatal(err)
	}
	if err := b.RotatePublisher(ctx); !errors.Is(err, ErrUnsigned) {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(b.path(nextPublisherFile)); err != nil {
			t.Error(err)
		}
	}
}
