package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/policies"
)

var ctx = context.Background()

func open(t *testing.T, dir string) *Home {
	t.Helper()
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func initBundle(t *testing.T, h *Home, name string) *Bundle {
	t.Helper()
	document, err := policies.Policy(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Init(ctx, NewBundle{Name: name, Audience: "default", Policy: document, File: name})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// published are the statuses in the file that edges read.
func published(t *testing.T, b *Bundle) map[string]bundle.Status {
	t.Helper()
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	out := make(map[string]bundle.Status)
	if err := opened.Walk(func(r *bundle.Record) error {
		out[r.KeyID] = r.Status
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// Several processes change keys at once: each change is published, and the file
// is the last version.
func TestConcurrentChanges(t *testing.T) {
	dir := t.TempDir()
	first := initBundle(t, open(t, dir), "default")
	var group sync.WaitGroup
	var mu sync.Mutex
	want := make(map[string]bundle.Status)
	for range 4 {
		b, err := open(t, dir).Bundle("default") // a store of its own, as another process has
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			for range 8 {
				k, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := b.Keyring().Revoke(ctx, k.ID); err != nil {
					t.Error(err)
				}
				mu.Lock()
				want[k.ID] = bundle.Revoked
				mu.Unlock()
			}
		})
	}
	group.Wait()
	got := published(t, first)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d keys are published, and %d were made", len(got), len(want))
	}
	opened, source, err := first.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if err := first.view(ctx, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		if opened.Manifest.Version != last.Version {
			t.Errorf("the file has version %d, and the store %d", opened.Manifest.Version, last.Version)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A key that could not be published is not there afterwards.
func TestFailedPublishing(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	if err := os.Remove(filepath.Join(b.dir, publisherFile)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"}); err == nil {
		t.Fatal("a key was made that nobody could sign")
	}
	if keys, err := b.Keyring().List(ctx); err != nil || len(keys) != 0 {
		t.Errorf("%d keys are in the store, %v", len(keys), err)
	}
}

// Versions rise, whatever the clock does, up to where edges would refuse them;
// the policy note stays as long as the policy does.
func TestVersions(t *testing.T) {
	h := open(t, t.TempDir())
	now := time.Now()
	h.now = func() time.Time { return now }
	b := initBundle(t, h, "default")
	versions := func() (manifest, policy int64) {
		opened, source, err := b.OpenFile()
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		return opened.Manifest.Version, opened.PolicyNote.Version
	}
	last, policyVersion := versions()
	for _, step := range []time.Duration{0, time.Minute, -30 * time.Second} {
		now = now.Add(step)
		if err := b.Publisher().Build(ctx); err != nil {
			t.Fatal(err)
		}
		v, p := versions()
		if v <= last || p != policyVersion {
			t.Errorf("after %v: version %d after %d, policy %d after %d", step, v, last, p, policyVersion)
		}
		last = v
	}
	now = now.Add(-time.Hour)
	if err := b.Publisher().Build(ctx); err == nil {
		t.Error("a version was signed that no edge would accept")
	}
}

// What a roll makes, and what it leaves.
func TestRoll(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "example")
	expires := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	old, _, err := b.Keyring().Create(ctx, NewKey{
		Name: "n", Kind: "secret", Environment: "live", Tenant: "acct_1", Expires: &expires,
		IPs: []string{"192.0.2.0/24"}, Referrers: []string{"https://a.example"}, Endpoints: []string{"GET /v1/users"},
	})
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	fresh, err := b.Keyring().Roll(ctx, old.ID, Roll{End: &end})
	if err != nil {
		t.Fatal(err)
	}
	if fresh.ID == old.ID || fresh.Digest != fresh.Secret.Digest() || fresh.Replaces != old.ID || fresh.Status != active ||
		fmt.Sprint(fresh.IPs, fresh.Referrers, fresh.Endpoints, fresh.Tenant, fresh.Name, *fresh.Expires) != fmt.Sprint(old.IPs, old.Referrers, old.Endpoints, old.Tenant, old.Name, expires) {
		t.Errorf("%+v", fresh)
	}
	k, err := b.Keyring().Show(ctx, old.ID)
	if err != nil || k.Status != deprecated || !k.Expires.Equal(end) {
		t.Errorf("%+v, %v", k, err)
	}
	if got := published(t, b); got[old.ID] != bundle.Deprecated || got[fresh.ID] != bundle.Active {
		t.Errorf("published: %v", got)
	}
	// A later end does not lengthen the old key's life.
	later := expires.Add(time.Hour)
	if _, err := b.Keyring().Roll(ctx, fresh.ID, Roll{End: &later}); err != nil {
		t.Fatal(err)
	}
	if k, err := b.Keyring().Show(ctx, fresh.ID); err != nil || !k.Expires.Equal(expires) {
		t.Errorf("%+v, %v", k, err)
	}
}

// Edges compare tenants and scopes with decoded paths, so neither holds "%".
func TestNamesHoldNoEscapes(t *testing.T) {
	h := open(t, t.TempDir())
	for policy, n := range map[string]NewKey{
		"vesuviopay": {Kind: "secret", Environment: "live", Tenant: "acme%2fother"},
		"vinr":       {Kind: "restricted", Environment: "live", Scopes: []string{"pay%6dents:read"}},
	} {
		if _, _, err := initBundle(t, h, policy).Keyring().Create(ctx, n); err == nil || !strings.Contains(err.Error(), "holds %") {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

// Keys are flagged once they are older than their policy wants.
func TestRotationIsFlagged(t *testing.T) {
	h := open(t, t.TempDir())
	b := initBundle(t, h, "vinfer")
	k, _, err := b.Keyring().Create(ctx, NewKey{Kind: "api", Tenant: "ws_1", Scopes: []string{"admin"}})
	if err != nil {
		t.Fatal(err)
	}
	for days, want := range map[int]bool{0: false, 89: false, 90: true, 400: true} {
		h.now = func() time.Time { return k.Created.Add(time.Duration(days) * 24 * time.Hour) }
		if got, err := b.Keyring().Show(ctx, k.ID); err != nil || got.Rotate != want {
			t.Errorf("after %d days: %v, %v", days, got.Rotate, err)
		}
	}
}

// Versions that a wrong clock has signed far in the future are begun anew, and
// only those.
func TestReset(t *testing.T) {
	h := open(t, t.TempDir())
	right := time.Now()
	clock := right
	h.now = func() time.Time { return clock }
	b := initBundle(t, h, "default")
	version := func() (manifest, policy int64) {
		t.Helper()
		opened, source, err := b.OpenFile()
		if err != nil {
			t.Fatal(err)
		}
		source.Close()
		return opened.Manifest.Version, opened.PolicyNote.Version
	}
	if err := b.Publisher().Reset(ctx); err == nil {
		t.Error("it was reset without need")
	}
	_, policy := version()
	clock = right.Add(90 * 24 * time.Hour)
	if err := b.Publisher().Build(ctx); err != nil {
		t.Fatal(err)
	}
	clock = right
	if err := b.Publisher().Build(ctx); err == nil || !strings.Contains(err.Error(), "bundle reset") {
		t.Errorf("a version far ahead is followed by another: %v", err)
	}
	if err := b.Publisher().Renew(ctx, 0); err == nil {
		t.Error("a version far ahead was renewed")
	}
	if err := b.Publisher().Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if m, p := version(); m > right.UnixMilli() || p != policy {
		t.Errorf("version %d, policy %d", m, p)
	}
	// So are those that a renewal has signed, of which the store does not know; and
	// they bar no change.
	for name, step := range map[string]func() error{
		"reset": func() error { return b.Publisher().Reset(ctx) },
		"build": func() error { return b.Publisher().Build(ctx) },
	} {
		clock = right.Add(90 * 24 * time.Hour)
		if err := b.Publisher().Renew(ctx, 0); err != nil {
			t.Fatal(err)
		}
		clock = right.Add(time.Second)
		if err := step(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m, p := version(); m > clock.UnixMilli()+10 || p != policy {
			t.Errorf("%s: version %d, policy %d", name, m, p)
		}
	}
	// The policy note too.
	clock = right.Add(90 * 24 * time.Hour)
	if err := b.RotatePublisher(ctx); err != nil {
		t.Fatal(err)
	}
	clock = right.Add(time.Second)
	if err := b.Publisher().Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if m, p := version(); m > clock.UnixMilli() || p > clock.UnixMilli() || p <= policy {
		t.Errorf("version %d, policy %d", m, p)
	}
	if err := b.Publisher().Build(ctx); err != nil {
		t.Error(err)
	}
}

// withUnsignedPolicy is a bundle whose policy was changed, and not signed: its signers are
// elsewhere.
func withUnsignedPolicy(t *testing.T, old, changed string) *Bundle {
	t.Helper()
	h := open(t, t.TempDir())
	b := initBundle(t, h, "default")
	if err := os.Remove(b.path(signerFile)); err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(b.path(policyFile))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(document), old) {
		t.Fatalf("%q is not in the policy", old)
	}
	if err := os.WriteFile(b.path(policyFile), []byte(strings.Replace(string(document), old, changed, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = h.Bundle("default"); err != nil {
		t.Fatal(err)
	}
	return b
}

// A key of a kind that the policy in force does not have is not published: edges
// would refuse all that stand in its leaf.
func TestKindOfAPolicyThatIsNotInForce(t *testing.T) {
	b := withUnsignedPolicy(t, "kinds:\n", "kinds:\n  robot: {prefix: bot}\n")
	if err := b.Publisher().Build(ctx); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a policy that nobody has signed: %v", err)
	}
	if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "robot", Environment: "live"}); err == nil || !strings.Contains(err.Error(), "not in the policy note in force") {
		t.Errorf("a key of a kind that is not in force: %v", err)
	}
	k, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "live"})
	if err != nil {
		t.Fatal(err)
	}
	if got := published(t, b); len(got) != 1 || got[k.ID] != bundle.Active {
		t.Errorf("published: %v", got)
	}
}

// Nor is a key of an environment that the policy in force does not have.
func TestEnvironmentOfAPolicyThatIsNotInForce(t *testing.T) {
	b := withUnsignedPolicy(t, "environments: {", "environments: {stage: , ")
	for range 2 {
		if _, _, err := b.Keyring().Create(ctx, NewKey{Kind: "secret", Environment: "stage"}); err == nil || !strings.Contains(err.Error(), "not in the policy note in force") {
			t.Errorf("a key of an environment that is not in force: %v", err)
		}
		inStore(t, b, `DELETE FROM nodes`) // so that all keys are looked at
	}
}

// A listing does not wait for a change that is being made, and sees the keys as
// they were before; nor does a store that is opened meanwhile.
func TestListWhileAnotherWrites(t *testing.T) {
	dir := t.TempDir()
	b := initBundle(t, open(t, dir), "default")
	before, _ := create(t, b, NewKey{})
	other, err := open(t, dir).Bundle("default") // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // less than a writer waits for another
	defer cancel()
	if err := b.Publisher().change(ctx, func(tx store.Tx) error {
		k, _, err := b.Keyring().newKey(NewKey{Kind: "secret", Environment: "live"})
		if err != nil {
			return err
		}
		if err := tx.Insert(ctx, k); err != nil {
			return err
		}
		for name, reader := range map[string]*Bundle{"the same store": b, "another": other} {
			keys, err := reader.Keyring().List(ctx)
			if err != nil || len(keys) != 1 || keys[0].ID != before.ID {
				t.Errorf("%s: %d keys are listed while one is made, %v", name, len(keys), err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, reader := range map[string]*Bundle{"the same store": b, "another": other} {
		if keys, err := reader.Keyring().List(ctx); err != nil || len(keys) != 2 {
			t.Errorf("%s: %d keys are listed afterwards, %v", name, len(keys), err)
		}
	}
}

// What reads cannot change anything.
func TestViewChangesNothing(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, _ := create(t, b, NewKey{})
	if err := b.view(ctx, func(tx store.Tx) error { return tx.SetStatus(ctx, k.ID, revoked, nil, nil) }); err == nil {
		t.Error("a key was changed by reading")
	}
	if k, err := b.Keyring().Show(ctx, k.ID); err != nil || k.Status != active {
		t.Errorf("%+v, %v", k, err)
	}
}

// The directory that is written from memory is the one that is unpacked from the
// file, to the byte.
func TestDirectoryIsTheFileUnpacked(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	b.Directory = filepath.Join(t.TempDir(), "origin")
	create(t, b, NewKey{})
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	unpacked := filepath.Join(t.TempDir(), "unpacked")
	if _, err := disk.WriteDir(unpacked, opened, source.Compiled); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, b.Directory), tree(t, unpacked); len(want) < 5 || !maps.Equal(got, want) {
		t.Errorf("%d files are written, and %d unpacked", len(got), len(want))
	}
}

// tree is what is in the files of a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	if err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(raw)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// R80: an API key is given once, when it is made, and is in no file and in nothing that
// is listed or shown later, but for its last four characters. One of a public kind is.
func TestKeyIsGivenOnce(t *testing.T) {
	dir := t.TempDir()
	b := initBundle(t, open(t, dir), "vinr")
	made := map[string]credential.Secret{}
	create := func(kind string) string {
		k, secret, err := b.Keyring().Create(ctx, NewKey{Kind: kind, Environment: "live", Name: "n"})
		if err != nil {
			t.Fatal(err)
		}
		made[k.ID] = secret
		return k.ID
	}
	secret, public := create("secret"), create("publishable")
	rolled, err := b.Keyring().Roll(ctx, secret, Roll{})
	if err != nil {
		t.Fatal(err)
	}
	made[rolled.ID] = rolled.Secret
	keys, err := b.Keyring().List(ctx)
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, listed := range keys {
		shown, err := b.Keyring().Show(ctx, listed.ID)
		if err != nil {
			t.Fatal(err)
		}
		key := made[listed.ID].Reveal()
		for what, k := range map[string]*Key{"listed": listed, "shown": shown} {
			raw, err := json.Marshal(k)
			if err != nil {
				t.Fatal(err)
			}
			if has := bytes.Contains(raw, []byte(key)); has != (k.ID == public) || k.Hint != key[len(key)-4:] || k.Digest != credential.DigestOf(key) {
				t.Errorf("%s %s: with its key: %v; ends with %q", k.Kind, what, has, k.Hint)
			}
		}
	}
	files := 0
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		raw, err := os.ReadFile(path)
		for id, secret := range made {
			body := secret.Reveal()[len("sk_live_"):]
			if id != public && (bytes.Contains(raw, []byte(body)) || bytes.Contains(raw, []byte(body[:16]))) {
				t.Errorf("%s has the key %s", path, id)
			}
		}
		return err
	}); err != nil || files < 3 {
		t.Errorf("%d files: %v", files, err)
	}
}
