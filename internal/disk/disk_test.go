package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/testing/crashtest"
	"github.com/keystile/keystile/policies"
)

// publisher signs bundles of the default policy.
type publisher struct {
	bundletest.Publisher
	t        testing.TB
	audience string
}

// start is when the tests' first version is signed.
var start = time.Now().Add(-time.Hour).UnixMilli()

func newPublisher(t testing.TB) *publisher {
	t.Helper()
	p := &publisher{t: t, audience: bundle.DefaultAudience}
	p.Policy = bundletest.NewSigner("policy")
	p.policy(start)
	return p
}

// policy signs a policy note with a new publisher.
func (p *publisher) policy(version int64) {
	p.t.Helper()
	compiled, err := policies.Compile("default", compile.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Manifest = bundletest.NewSigner("publisher")
	if err := p.Publish(compiled, "default", p.audience, version); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) trust() *bundle.Trust {
	p.t.Helper()
	trust, err := bundle.NewTrust("default", p.audience, 1, p.Policy.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	return trust
}

func trustOf(t testing.TB, keys ...string) *bundle.Trust {
	t.Helper()
	trust, err := bundle.NewTrust("default", bundle.DefaultAudience, 1, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

// records makes n records; the first revoked ones are that.
func records(n, revoked int) []bundle.Record {
	out := bundletest.Records(n)
	for i := range revoked {
		out[i].Status = bundle.Revoked
	}
	return out
}

// pack is a packed file of records at a version.
func (p *publisher) pack(version int64, records []bundle.Record) []byte {
	p.t.Helper()
	packed, err := p.Pack(version, records)
	if err != nil {
		p.t.Fatal(err)
	}
	return packed
}

// mark is what an edge remembers of a version.
func (p *publisher) mark(version int64) *bundle.Mark {
	p.t.Helper()
	raw := p.pack(version, nil)
	pack, err := bundle.OpenPack(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := p.trust().Open(pack.Notes)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// R56: a state only ever rises, by version and by policy version, and a
// publisher's key that the policy note does not list any more does not count.
func TestStateRises(t *testing.T) {
	p := newPublisher(t)
	s := NewState(filepath.Join(t.TempDir(), "not", "there", "state"), p.trust())
	if m, err := s.Last(); m != nil || err != nil {
		t.Fatalf("a state that is not there: %v, %v", m, err)
	}
	raise := func(what string, m *bundle.Mark, want error) {
		t.Helper()
		before, _ := s.Last()
		if err := s.Raise(m); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v", what, err)
		}
		after, err := s.Last()
		if err != nil {
			t.Fatal(err)
		}
		if kept := m; want != nil {
			kept = before
			if after.Manifest != kept.Manifest {
				t.Errorf("%s: it was refused, and is remembered", what)
			}
		} else if after.Manifest != m.Manifest || after.PolicyNote.Version != m.PolicyNote.Version {
			t.Errorf("%s: it is not remembered", what)
		}
	}
	first := p.mark(start)
	raise("the first", first, nil)
	raise("again", first, nil)
	raise("a later one", p.mark(start+10), nil)
	raise("an older one", first, bundle.ErrRollback)
	fork := p.mark(start + 10)
	fork.Manifest.Keys++ // another text under the same version
	raise("a fork", fork, bundle.ErrForked)

	// A stolen publisher's key has signed as far ahead as edges accept.
	raise("far ahead", p.mark(start+60_000), nil)
	old := *p
	p.policy(start + 20)
	raise("its successor, of a lower version", p.mark(start+30), nil)
	raise("the stolen key under the older policy note", old.mark(start+70_000), bundle.ErrRollback)
	raise("the successor's older one", p.mark(start+29), bundle.ErrRollback)
}

// A state that does not hold is dropped, told, and kept beside; what cannot be
// read is another error.
func TestStateDropped(t *testing.T) {
	p, stranger := newPublisher(t), newPublisher(t)
	good := bundle.AppendState(nil, p.mark(start).Notes)
	for name, tt := range map[string]struct {
		raw   []byte
		trust *bundle.Trust
	}{
		"garbage":          {[]byte("garbage"), p.trust()},
		"empty":            {nil, p.trust()},
		"truncated":        {good[:len(good)-1], p.trust()},
		"longer":           {append(bytes.Clone(good), '\n'), p.trust()},
		"very long":        {bytes.Repeat(good, 1000), p.trust()},
		"a bit":            {flip(good, len(good)/2), p.trust()},
		"another trust":    {good, stranger.trust()},
		"first line of v2": {bytes.Replace(good, []byte("v1"), []byte("v2"), 1), p.trust()},
		"zeros":            {make([]byte, len(good)), p.trust()},
	} {
		path := filepath.Join(t.TempDir(), "state")
		write(t, path, tt.raw)
		s := NewState(path, tt.trust)
		if m, err := s.Last(); m != nil || !errors.Is(err, ErrDropped) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		if !bytes.Equal(read(t, path), tt.raw) {
			t.Errorf("%s: reading it has changed it", name)
		}
		if name == "another trust" {
			continue
		}
		if err := s.Raise(p.mark(start)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if m, err := s.Last(); err != nil || m == nil {
			t.Errorf("%s: %v, %v", name, m, err)
		}
		if !bytes.Equal(read(t, path+".bad"), tt.raw) {
			t.Errorf("%s: what was there is lost", name)
		}
	}
	// The standby has taken over, and both are trusted: what was remembered holds.
	path := filepath.Join(t.TempDir(), "state")
	write(t, path, good)
	if m, err := NewState(path, trustOf(t, stranger.Policy.Key, p.Policy.Key)).Last(); m == nil || err != nil {
		t.Errorf("a wider trust: %v, %v", m, err)
	}
	dir := t.TempDir()
	if _, err := NewState(dir, p.trust()).Last(); err == nil || errors.Is(err, ErrDropped) {
		t.Errorf("a directory: %v", err)
	}
	write(t, filepath.Join(dir, "file"), nil)
	s := NewState(filepath.Join(dir, "file", "state"), p.trust())
	if err := s.Raise(p.mark(start)); err == nil || errors.Is(err, bundle.ErrRollback) {
		t.Errorf("a place that cannot be written: %v", err)
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// A process that holds the lock for ever keeps nobody waiting: the lock is waited
// for once, no try leaves anything behind, and the state is raised by the first one
// after the lock is free.
func TestStateLocked(t *testing.T) {
	p := newPublisher(t)
	s := NewState(filepath.Join(t.TempDir(), "state"), p.trust())
	unlock, err := lockedfile.MutexAt(s.path + ".lock").Lock()
	if err != nil {
		t.Fatal(err)
	}
	m := p.mark(start)
	try := func() {
		t.Helper()
		if err := s.Raise(m); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), ".lock") {
			t.Fatal(err)
		}
	}
	try()
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	open, running, begin := descriptors(), runtime.NumGoroutine(), time.Now()
	const tries = 200
	for range tries {
		try()
	}
	if took := time.Since(begin); took > tries*lockWait/4 {
		t.Errorf("%d tries took %v", tries, took)
	}
	if d, r := descriptors(), runtime.NumGoroutine(); d > open || r > running {
		t.Errorf("after %d tries %d descriptors and %d goroutines, before %d and %d", tries, d, r, open, running)
	}
	unlock()
	if err := s.Raise(m); err != nil {
		t.Fatal(err)
	}
	if last, err := s.Last(); err != nil || last == nil {
		t.Errorf("it is not remembered once the lock is free: %v", err)
	}
}

// What is remembered of one audience is there again after a change to another one
// and back, and bars nothing there.
func TestAudiences(t *testing.T) {
	p, path := newPublisher(t), filepath.Join(t.TempDir(), "state")
	of := func(audience string, version int64) (*State, *bundle.Mark) {
		t.Helper()
		p.audience = audience
		p.policy(version)
		return NewState(path, p.trust()), p.mark(version)
	}
	files := make(map[string]bool)
	for i, audience := range []string{bundle.DefaultAudience, "east", "west", "east.lock", "a/../b"} {
		older := start + int64(10-i)
		s, m := of(audience, older)
		if err := s.Raise(m); err != nil {
			t.Fatalf("%s: %v", audience, err)
		}
		s, m = of(audience, older+100)
		if err := s.Raise(m); err != nil {
			t.Fatalf("%s: %v", audience, err)
		}
		if filepath.Dir(s.path) != filepath.Dir(path) || files[s.path] || files[s.path+".lock"] {
			t.Errorf("%s: it is kept in %s", audience, s.path)
		}
		files[s.path], files[s.path+".lock"] = true, true
	}
	for _, audience := range []string{"east", bundle.DefaultAudience, "west"} {
		s, m := of(audience, start)
		if last, err := s.Last(); err != nil || last == nil || last.PolicyNote.Audience != audience {
			t.Errorf("%s: %+v, %v", audience, last, err)
		}
		if err := s.Raise(m); !errors.Is(err, bundle.ErrRollback) {
			t.Errorf("%s: an older bundle after the change: %v", audience, err)
		}
	}
}

// A packed file that is written over in place, by something else or by a later
// bundle, takes nothing from the bundle that was opened; and it is seen to be
// another one, though its size and time are the same.
func TestWrittenOver(t *testing.T) {
	p, path := newPublisher(t), filepath.Join(t.TempDir(), "b.keystile")
	write(t, path, p.pack(start, records(300, 0)))
	b, source, err := OpenBundle(path, p.trust())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	first, err := Look(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Look(path); err != nil || !again.Same(first) || first.Same(nil) {
		t.Errorf("nothing has changed: %v", err)
	}
	over := p.pack(start+1, records(300, 1))
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(over)) {
		t.Fatalf("the test is of no use: %v, %v", info, err)
	}
	write(t, path, over)
	if err := os.Chtimes(path, first.info.ModTime(), first.info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if second, err := Look(path); err != nil || second.Same(first) {
		t.Errorf("a later bundle looks the same: %v", err)
	}
	write(t, path, []byte("garbage"))
	if third, err := Look(path); err != nil || third.Same(first) {
		t.Errorf("garbage looks the same: %v", err)
	}
	keys := 0
	if err := b.Walk(func(*bundle.Record) error { keys++; return nil }); err != nil || keys != 300 {
		t.Errorf("%d keys are left of what was opened: %v", keys, err)
	}
	// The notes alone tell a directory's bundles apart.
	dir := filepath.Join(t.TempDir(), "origin")
	if _, err := WriteDir(dir, b, source.Compiled); err != nil {
		t.Fatal(err)
	}
	before, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, inDir(dir, bundle.PathManifest), p.mark(start+1).Notes.Manifest)
	if err := os.Chtimes(inDir(dir, bundle.PathManifest), before.info.ModTime(), before.info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if after, err := Look(dir); err != nil || after.Same(before) {
		t.Errorf("a directory's other manifest looks the same: %v", err)
	}
}

const envState = "KEYSTILE_STATE_DIR"

// Two processes raise one state at once: it never falls, and ends at the highest.
func TestTwoProcesses(t *testing.T) {
	const versions = 40
	if dir := os.Getenv(envState); dir != "" {
		trust := trustOf(t, string(read(t, filepath.Join(dir, "key"))))
		s := NewState(filepath.Join(dir, "state"), trust)
		for i := range versions {
			notes, err := bundle.ParseState(read(t, filepath.Join(dir, fmt.Sprint(i))))
			if err != nil {
				t.Fatal(err)
			}
			m, err := trust.Open(notes)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Raise(m)
			for errors.Is(err, ErrLocked) {
				err = s.Raise(m)
			}
			if err != nil && !errors.Is(err, bundle.ErrRollback) {
				t.Fatal(err)
			}
			last, err := s.Last()
			if err != nil || last.Manifest.Version < m.Manifest.Version {
				t.Fatalf("after version %d: %+v, %v", m.Manifest.Version, last, err)
			}
		}
		return
	}
	p, dir := newPublisher(t), t.TempDir()
	write(t, filepath.Join(dir, "key"), []byte(p.Policy.Key))
	for i := range versions {
		write(t, filepath.Join(dir, fmt.Sprint(i)), bundle.AppendState(nil, p.mark(start+int64(i)).Notes))
	}
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			child := exec.Command(os.Args[0], "-test.run=^TestTwoProcesses$")
			child.Env = append(os.Environ(), envState+"="+dir)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	group.Wait()
	last, err := NewState(filepath.Join(dir, "state"), p.trust()).Last()
	if err != nil || last.Manifest.Version != start+versions-1 {
		t.Errorf("%+v, %v", last, err)
	}
}

// versions are two versions of a bundle as packed files in a folder, the second
// with a key revoked and 20 keys more.
func versions(t *testing.T, dir string) {
	p := newPublisher(t)
	write(t, filepath.Join(dir, "key"), []byte(p.Policy.Key))
	write(t, filepath.Join(dir, "1.keystile"), p.pack(start, records(200, 0)))
	write(t, filepath.Join(dir, "2.keystile"), p.pack(start+1, records(220, 1)))
}

func openVersion(dir, file string) (*bundle.Bundle, *Source, error) {
	key, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return nil, nil, err
	}
	trust, err := bundle.NewTrust("default", bundle.DefaultAudience, 1, string(key))
	if err != nil {
		return nil, nil, err
	}
	return OpenBundle(filepath.Join(dir, file), trust)
}

// whole says which version the bundle in a folder is, all of which is there.
func whole(t *testing.T, dir, file, point string) int64 {
	t.Helper()
	b, source, err := openVersion(dir, file)
	if err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	defer source.Close()
	keys, revoked := uint64(0), 0
	if err := b.Walk(func(r *bundle.Record) error {
		keys++
		if r.Status == bundle.Revoked {
			revoked++
		}
		return nil
	}); err != nil || keys != b.Manifest.Keys {
		t.Fatalf("%s: %d keys, %v", point, keys, err)
	}
	version := b.Manifest.Version - start
	if int64(revoked) != version {
		t.Errorf("%s: version %d has %d revoked keys", point, version, revoked)
	}
	return version
}

// kill -9 at each step of remembering: the state is the one before or the new
// one, and rises with the next try.
func TestCrashRemembering(t *testing.T) {
	mark := func(dir, file string) *bundle.Mark {
		b, source, err := openVersion(dir, file)
		if err != nil {
			t.Fatal(err)
		}
		source.Close()
		return &b.Mark
	}
	raise := func(dir, file string) error {
		key := string(read(t, filepath.Join(dir, "key")))
		return NewState(filepath.Join(dir, "state"), trustOf(t, key)).Raise(mark(dir, file))
	}
	crashtest.Each(t, func(dir string) {
		versions(t, dir)
		if err := raise(dir, "1.keystile"); err != nil {
			t.Fatal(err)
		}
	}, func(dir string) error {
		return raise(dir, "2.keystile")
	}, func(dir, point string) {
		s := NewState(filepath.Join(dir, "state"), trustOf(t, string(read(t, filepath.Join(dir, "key")))))
		if m, err := s.Last(); err != nil || m == nil || m.Manifest.Version < start {
			t.Errorf("%s: %v, %v", point, m, err)
		}
		if err := raise(dir, "2.keystile"); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		if m, err := s.Last(); err != nil || m.Manifest.Version != start+1 {
			t.Errorf("%s: %v, %v", point, m, err)
		}
	})
}

// kill -9 at each step of writing a packed file.
func TestCrashPacking(t *testing.T) {
	pack := func(dir, from string) error {
		b, source, err := openVersion(dir, from)
		if err != nil {
			return err
		}
		defer source.Close()
		return WritePack(filepath.Join(dir, "out.keystile"), b, source.Compiled)
	}
	crashtest.Each(t, func(dir string) {
		versions(t, dir)
		if err := pack(dir, "1.keystile"); err != nil {
			t.Fatal(err)
		}
	}, func(dir string) error {
		return pack(dir, "2.keystile")
	}, func(dir, point string) {
		whole(t, dir, "out.keystile", point)
		if err := pack(dir, "2.keystile"); err != nil || whole(t, dir, "out.keystile", point) != 1 {
			t.Errorf("%s: %v", point, err)
		}
	})
}

// kill -9 at each step of writing a directory: a reader meets the version before
// or the new one, whole; only between the two notes there is none to begin with,
// and the version before is there for who remembers it.
func TestCrashUnpacking(t *testing.T) {
	unpack := func(dir, from string) error {
		b, source, err := openVersion(dir, from)
		if err != nil {
			return err
		}
		defer source.Close()
		_, err = WriteDir(filepath.Join(dir, "origin"), b, source.Compiled)
		return err
	}
	crashtest.Each(t, func(dir string) {
		versions(t, dir)
		if err := unpack(dir, "1.keystile"); err != nil {
			t.Fatal(err)
		}
	}, func(dir string) error {
		return unpack(dir, "2.keystile")
	}, func(dir, point string) {
		whole(t, dir, "origin", point)
		if err := unpack(dir, "2.keystile"); err != nil || whole(t, dir, "origin", point) != 1 {
			t.Errorf("%s: %v", point, err)
		}
		b, source, err := openVersion(dir, "2.keystile")
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		if _, err := Prune(filepath.Join(dir, "origin"), b); err != nil || whole(t, dir, "origin", point) != 1 {
			t.Errorf("%s, pruned: %v", point, err)
		}
		left := 0
		if err := filepath.WalkDir(filepath.Join(dir, "origin", "v1"), func(path string, d fs.DirEntry, err error) error {
			if strings.Contains(d.Name(), ".new") {
				left++
			}
			return err
		}); err != nil || left > 0 {
			t.Errorf("%s: %d half-written files are left, %v", point, left, err)
		}
	})
}

// The directory's notes alone change where a policy note has changed, and who
// remembers the version before still finds all of it between the two.
func TestBetweenTheNotes(t *testing.T) {
	p, dir := newPublisher(t), filepath.Join(t.TempDir(), "origin")
	file := filepath.Join(t.TempDir(), "pack")
	unpack := func(version int64) *bundle.Bundle {
		write(t, file, p.pack(version, records(100, 0)))
		b, source, err := OpenBundle(file, p.trust())
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		if _, err := WriteDir(dir, b, source.Compiled); err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := unpack(start)
	manifest := read(t, inDir(dir, bundle.PathManifest))
	p.policy(start + 1)
	unpack(start + 1)
	write(t, inDir(dir, bundle.PathManifest), manifest)
	if _, _, err := OpenBundle(dir, p.trust()); err == nil {
		t.Error("a manifest under another policy note was believed")
	}
	source, err := OpenDir(dir, first.Notes)
	if err != nil {
		t.Fatal(err)
	}
	b, err := source.Verify(p.trust())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Walk(func(*bundle.Record) error { return nil }); err != nil {
		t.Error(err)
	}
}

// A crash's leftovers go once they are old, and those of a writer at work do not.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".f.1.new"), filepath.Join(dir, ".f.2.new")
	write(t, old, nil)
	write(t, young, nil)
	past := time.Now().Add(-2 * leftover)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceBytes(filepath.Join(dir, "f"), 0o640, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the old one is left")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("the young one is gone")
	}
	if info, err := os.Stat(filepath.Join(dir, "f")); err != nil || info.Mode().Perm() != 0o640 {
		t.Error(info.Mode(), err)
	}
}

// A state that is there and cannot be read is not none: whatever it remembers
// would be forgotten.
func TestStateThatCannotBeRead(t *testing.T) {
	p := newPublisher(t)
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Symlink("state", path); err != nil { // round and round: it can be replaced, and not read
		t.Fatal(err)
	}
	err := NewState(path, p.trust()).Raise(p.mark(start))
	if err == nil || errors.Is(err, ErrDropped) || errors.Is(err, bundle.ErrRollback) {
		t.Errorf("it is raised: %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("it is replaced: %v, %v", info, err)
	}
}

// What an edge remembers is its own.
func TestStateIsPrivate(t *testing.T) {
	p := newPublisher(t)
	path := filepath.Join(t.TempDir(), "folder", "state")
	if err := NewState(path, p.trust()).Raise(p.mark(start)); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, not %v, %v", file, info.Mode().Perm(), want, err)
		}
	}
}

// openPack opens a packed file's bytes, written to a file of their own.
func (p *publisher) openPack(raw []byte) (*bundle.Bundle, []byte) {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "pack")
	write(p.t, path, raw)
	b, source, err := OpenBundle(path, p.trust())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { source.Close() })
	return b, source.Compiled
}

// Pruning for a bundle that is not the one in the directory any more removes
// nothing of its successor's.
func TestPruneForAnother(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	before, compiled := p.openPack(p.pack(start, records(200, 0)))
	after, _ := p.openPack(p.pack(start+1, records(200, 5)))
	for _, b := range []*bundle.Bundle{before, after} {
		if _, err := WriteDir(dir, b, compiled); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := Prune(dir, before); err == nil || removed != 0 {
		t.Errorf("%d files are removed, %v", removed, err)
	}
	whole := func() {
		t.Helper()
		b, source, err := OpenBundle(dir, p.trust())
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		if err := b.Walk(func(*bundle.Record) error { return nil }); err != nil || b.Manifest != after.Manifest {
			t.Errorf("%v", err)
		}
	}
	whole()
	if removed, err := Prune(dir, after); err != nil || removed == 0 {
		t.Errorf("%d files are removed, %v", removed, err)
	}
	whole()
}

// An object that a full disk or a crash left short is written again.
func TestShortObject(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	b, compiled := p.openPack(p.pack(start, records(200, 0)))
	if _, err := WriteDir(dir, b, compiled); err != nil {
		t.Fatal(err)
	}
	short := 0
	if err := b.Nodes(func(h bundle.Hash, raw []byte) error {
		short++
		return os.WriteFile(objectFile(dir, h), raw[:len(raw)-1], 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	if written, err := WriteDir(dir, b, compiled); err != nil || written != short {
		t.Errorf("%d of %d objects are written, %v", written, short, err)
	}
	read, source, err := OpenBundle(dir, p.trust())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if err := read.Walk(func(*bundle.Record) error { return nil }); err != nil {
		t.Error(err)
	}
}

// Once the lock was had again, others are waited for as before.
func TestLockIsWaitedForAgain(t *testing.T) {
	p := newPublisher(t)
	s := NewState(filepath.Join(t.TempDir(), "state"), p.trust())
	for range 2 {
		unlock, err := lockedfile.MutexAt(s.path + ".lock").Lock()
		if err != nil {
			t.Fatal(err)
		}
		if s.locked.Load() {
			t.Error("the lock was free, and is taken for one that stays locked")
		}
		s.locked.Store(true)
		unlock()
		if err := s.Raise(p.mark(start)); err != nil {
			t.Fatal(err)
		}
	}
}

// What the bundle in force needs stays, for those who begin with nothing too.
func TestPruneKeepsTheStart(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	b, compiled := p.openPack(p.pack(start, records(200, 0)))
	if _, err := WriteDir(dir, b, compiled); err != nil {
		t.Fatal(err)
	}
	if removed, err := Prune(dir, b); err != nil || removed != 0 {
		t.Errorf("%d files are removed, %v", removed, err)
	}
	if _, err := os.Stat(startPack(dir, b.Manifest.Root)); err != nil {
		t.Error(err)
	}
}

// A file is the same only if it is the same file, written at the same time.
func TestSameFile(t *testing.T) {
	p, path := newPublisher(t), filepath.Join(t.TempDir(), "b.keystile")
	pack := p.pack(start, records(300, 0))
	write(t, path, pack)
	first, err := Look(path)
	if err != nil {
		t.Fatal(err)
	}
	at := first.info.ModTime()
	if err := os.Chtimes(path, at, at.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if g, err := Look(path); err != nil || g.Same(first) {
		t.Error("a file that was written over with the same notes looks the same")
	}
	write(t, path+".2", pack)
	if err := os.Chtimes(path+".2", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".2", path); err != nil {
		t.Fatal(err)
	}
	if g, err := Look(path); err != nil || g.Same(first) {
		t.Error("another file with the same notes looks the same")
	}
}
