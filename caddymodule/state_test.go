package caddymodule_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/policies"
)

// withMetrics is vinr's site, and one that shows the metrics.
func withMetrics(s *server) string { return vinr(s) + "http://metrics.test {\n\tmetrics\n}\n" }

// metric is the value of a gauge or counter.
func (s *server) metric(name string) string {
	s.t.Helper()
	for line := range strings.Lines(body(s.do("GET", "http://metrics.test/"))) {
		if value, ok := strings.CutPrefix(line, "caddy_keystile_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (s *server) metricWithin(name, want string) {
	s.t.Helper()
	for begin := time.Now(); s.metric(name) != want; time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) > patience {
			s.t.Fatalf("%s is %q, not %q", name, s.metric(name), want)
		}
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// reload loads the same servers with other options.
func (s *server) reload(h *home, config func(string) string, sites func(*server) string, names ...string) error {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.http)
	_, tlsPort, _ := net.SplitHostPort(s.https)
	extra := fmt.Sprintf("\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1", port, tlsPort)
	if err := caddy.Load(adapt(s.t, config(h.globals(extra, names...)+sites(s))), true); err != nil {
		return err
	}
	s.ready("api.vinr.com")
	return nil
}

func same(config string) string { return config }

// R56: an older bundle is refused after a restart too; without a state it is only
// where the configuration names the lowest version.
func TestRestart(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	older, newer := filepath.Join(h.dir, "older"), filepath.Join(h.dir, "newer")
	copyFile(t, b.File(), older)
	s := start(t, h, []string{"vinr"}, withMetrics)
	s.within("in use", 200, header)
	if _, err := b.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	s.within("revoked", 401, header)
	copyFile(t, b.File(), newer)
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	source.Close()
	version := opened.Manifest.Version

	stop := func() {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	copyFile(t, older, b.File())
	rollbacks := `bundles_refused_total{bundle="vinr",cause="rollback"}`
	if err := s.reload(h, same, withMetrics, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("an older bundle after a restart", 503, header)
	if number(t, s.metric(rollbacks)) == 0 {
		t.Error("the rollback is not told")
	}
	if got := s.metric(`bundle_in_force{bundle="vinr"}`); got != "0" {
		t.Errorf("bundle_in_force is %q", got)
	}
	copyFile(t, newer, b.File())
	s.within("the newer one again", 401, header)
	s.metricWithin(`bundle_in_force{bundle="vinr"}`, "1")

	// Without a state the older one is believed, but for min_version.
	off := func(extra string) func(string) string {
		return func(config string) string {
			return strings.Replace(config, "state "+filepath.Join(h.dir, "state", "vinr"), "state off\n"+extra, 1)
		}
	}
	stop()
	copyFile(t, older, b.File())
	if err := s.reload(h, off(""), withMetrics, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("no state", 200, header)
	if err := s.reload(h, off(fmt.Sprintf("min_version %d", version)), withMetrics, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("min_version", 503, header)
	copyFile(t, newer, b.File())
	s.within("min_version is reached", 401, header)
	if err := s.reload(h, off(fmt.Sprintf("min_version 0 %d", opened.PolicyNote.Version+1)), withMetrics, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("a policy version below the lowest", 503, header)
}

// A disk that is full, or gone, keeps no revocation from biting; it is told, and
// what is in use is remembered as soon as it can be.
func TestStateCannotBeWritten(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	dir := filepath.Join(h.dir, "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config := adapt(t, h.globals("", "vinr"))
	if err := caddy.Load(config, true); err == nil || !strings.Contains(err.Error(), "state off") {
		t.Errorf("a place that cannot be written was taken: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s := start(t, h, []string{"vinr"}, withMetrics)
	s.within("in use", 200, header)
	s.metricWithin(`state_degraded{bundle="vinr"}`, "0")
	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	s.within("revoked without a state", 401, header)
	s.metricWithin(`state_degraded{bundle="vinr"}`, "1")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	s.metricWithin(`state_degraded{bundle="vinr"}`, "0")
	trust, err := b.Trust()
	if err != nil {
		t.Fatal(err)
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if last, err := disk.NewState(filepath.Join(dir, "vinr"), trust).Last(); err != nil || last.Manifest != opened.Manifest {
		t.Errorf("remembered: %+v, %v", last, err)
	}
}

// A packed file that is written over in place, as `cp` does, takes no key from the
// bundle in use, and a later bundle of the same size and time is taken over.
func TestWrittenOver(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	var ids, headers []string
	for range 100 { // more than one leaf
		id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
		ids, headers = append(ids, id), append(headers, "X-Api-Key: "+key)
	}
	site := func(*server) string {
		return "http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr\n\trespond ok\n}\nhttp://metrics.test {\n\tmetrics\n}\n"
	}
	// The file of the edge is one that only this test writes.
	file := filepath.Join(h.dir, "edge.keystile")
	copyFile(t, b.File(), file)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, h, []string{"vinr"}, site)
	if err := s.reload(h, func(config string) string { return strings.Replace(config, "file "+b.File(), "file "+file, 1) }, site, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("in use", 200, headers[0])
	refusals := `bundles_refused_total{bundle="vinr",cause="invalid"}`
	told := number(t, s.metric(refusals))
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.metricWithin(refusals, fmt.Sprint(told+1))
	for _, header := range headers {
		if got := s.do("GET", "https://api.vinr.com/v1/payments", header).StatusCode; got != 200 {
			t.Fatalf("a key that was not used before the file was written over: %d", got)
		}
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * 200 * time.Millisecond) // it is looked at
	if _, err := b.Keyring().Revoke(context.Background(), ids[0]); err != nil {
		t.Fatal(err)
	}
	revoked, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	if len(revoked) != len(good) {
		t.Fatalf("the test is of no use: %d bytes, and %d before", len(revoked), len(good))
	}
	if err := os.WriteFile(file, revoked, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	s.within("revoked", 401, headers[0])
	s.within("not revoked", 200, headers[99])
}

// Validating a configuration writes nothing: another user may do it.
func TestValidateWritesNothing(t *testing.T) {
	h := newHome(t, "vinr")
	t.Setenv("XDG_DATA_HOME", filepath.Join(h.dir, "data"))
	config := strings.Replace(h.globals("", "vinr"), "state "+filepath.Join(h.dir, "state", "vinr"), "", 1)
	if err := validate(t, config+"http://api.vinr.com {\n\tkeystile vinr\n}\n"); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(h.dir, "data", "caddy", "keystile", "vinr.state")
	if found, _ := filepath.Glob(state + "*"); len(found) > 0 {
		t.Errorf("it wrote %q", found)
	}
	// A run does, and there.
	if err := caddy.Load(adapt(t, config), true); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(state); err != nil {
		t.Error(err)
	}
}

// The publisher's key, the policy and the policy signer are replaced under load:
// no edge is touched and no request fails; the old publisher's key is worth
// nothing then, also after a reload with the new list of signers.
func TestRotation(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	folder := filepath.Dir(b.File())
	stolen, err := control.ReadSigningKey(filepath.Join(folder, "publisher.key"))
	if err != nil {
		t.Fatal(err)
	}
	before, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	edge := filepath.Join(h.dir, "edge-signers.txt") // as the edge was set up
	copyFile(t, b.TrustFile(), edge)
	config := func(config string) string { return strings.ReplaceAll(config, b.TrustFile(), edge) }
	// Answers without an upstream: it is the edge that is looked at.
	site := func(*server) string {
		return "http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr\n\trespond ok\n}\nhttp://metrics.test {\n\tmetrics\n}\n"
	}
	s := start(t, h, []string{"vinr"}, site)
	if err := s.reload(h, config, site, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("in use", 200, header)

	done := make(chan struct{})
	var asked, failed atomic.Int64
	for range 2 {
		client := s.client()
		go func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r := newRequest(t, "GET", "https://api.vinr.com/v1/payments", header)
				response, err := client.Do(r)
				if err == nil {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				if err != nil || response.StatusCode != 200 {
					failed.Add(1)
				}
				asked.Add(1)
			}
		}()
	}
	inUse := func(what string) {
		t.Helper()
		opened, source, err := b.OpenFile()
		if err != nil {
			t.Fatal(err)
		}
		source.Close()
		s.metricWithin(`bundle_version_seconds{bundle="vinr"}`, fmt.Sprint(float64(opened.Manifest.Version)/1000))
		if failed.Load() > 0 {
			t.Fatalf("%s: %d of %d requests failed", what, failed.Load(), asked.Load())
		}
	}
	if err := b.RotatePublisher(context.Background()); err != nil {
		t.Fatal(err)
	}
	inUse("the publisher was replaced")
	good, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}

	// The stolen key signs under the note that lists it.
	rollbacks := `bundles_refused_total{bundle="vinr",cause="rollback"}`
	told := number(t, s.metric(rollbacks))
	if err := disk.ReplaceBytes(b.File(), 0o644, forge(t, before, source.Compiled, stolen, time.Now())); err != nil {
		t.Fatal(err)
	}
	s.metricWithin(rollbacks, fmt.Sprint(told+1))
	if err := disk.ReplaceBytes(b.File(), 0o644, good); err != nil {
		t.Fatal(err)
	}

	if err := b.RotateSigner(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	inUse("the standby signs")
	// Edges get the new list at leisure, by a reload.
	copyFile(t, b.TrustFile(), edge)
	if err := s.reload(h, config, site, "vinr"); err != nil {
		t.Fatal(err)
	}
	inUse("the new list of signers")
	if err := b.RotateSigner(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	inUse("the second standby signs")
	close(done)
	if asked.Load() < 100 {
		t.Errorf("only %d requests were made", asked.Load())
	}
}

// forge is a packed file without keys that a publisher's key has signed under the
// policy note of b.
func forge(t *testing.T, b *bundle.Bundle, compiled []byte, publisher note.Signer, at time.Time) []byte {
	t.Helper()
	publication := &bundle.Publication{Notes: bundle.Notes{PolicyNote: b.Notes.PolicyNote}, Compiled: compiled, Note: &b.PolicyNote}
	signed, err := publication.Sign(nil, at.UnixMilli(), bundle.DefaultLife, publisher)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := signed.Pack(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A state from the future, as a clock that was wrong leaves it, bars what is older
// until the publisher is replaced; one that is garbage counts for nothing.
func TestStateOfTheFuture(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	publisher, err := control.ReadSigningKey(filepath.Join(filepath.Dir(b.File()), "publisher.key"))
	if err != nil {
		t.Fatal(err)
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ahead := filepath.Join(h.dir, "ahead.keystile")
	if err := os.WriteFile(ahead, forge(t, opened, source.Compiled, publisher, time.Now().Add(time.Hour)), 0o600); err != nil {
		t.Fatal(err)
	}
	trust, err := b.Trust()
	if err != nil {
		t.Fatal(err)
	}
	future, futureSource, err := disk.OpenBundle(ahead, trust)
	if err != nil {
		t.Fatal(err)
	}
	defer futureSource.Close()
	state := filepath.Join(h.dir, "state", "vinr")
	if err := disk.NewState(state, trust).Raise(&future.Mark); err != nil {
		t.Fatal(err)
	}
	s := start(t, h, []string{"vinr"}, vinr)
	s.within("what is remembered is of the future", 503, header)
	copyFile(t, ahead, b.File())
	time.Sleep(3 * 200 * time.Millisecond)
	s.within("so is the bundle", 503, header)
	if err := b.RotatePublisher(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.within("the publisher was replaced", 200, header)

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(h, same, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("what is remembered is garbage", 200, header)
	if last, err := disk.NewState(state, trust).Last(); err != nil || last == nil {
		t.Errorf("the state was not written anew: %v", err)
	}
}

// A configuration that changes while the bundle's file is bad goes on with the
// bundle that the one before had in use.
func TestReloadBesideABadFile(t *testing.T) {
	h := newHome(t, "vinr", "default")
	b := h.bundle("vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	s := start(t, h, []string{"vinr"}, vinr)
	s.within("in use", 200, header)
	if err := disk.ReplaceBytes(b.File(), 0o644, []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	changed := func(with string) func(string) string {
		return func(config string) string {
			return strings.Replace(config, "file "+b.File(), with+"\nfile "+b.File(), 1)
		}
	}
	if err := s.reload(h, changed("max_age 12h"), vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("after the reload", 200, header)
	// Not under signers who have not signed it.
	stranger := func(config string) string {
		return strings.Replace(config, b.TrustFile(), h.bundle("default").TrustFile(), 1)
	}
	if err := s.reload(h, stranger, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("under other signers", 503, header)
	if err := s.reload(h, same, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("nothing good is left", 503, header)
	if err := b.Publisher().BuildTrusting(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.within("the file is good again", 200, header)
}

// A directory is a source as good as a file, and one that is caught between its
// two notes serves what was in use before.
func TestDirectorySource(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	origin := filepath.Join(h.dir, "origin")
	unpack := func() {
		t.Helper()
		opened, source, err := b.OpenFile()
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		if _, err := disk.WriteDir(origin, opened, source.Compiled); err != nil {
			t.Fatal(err)
		}
	}
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	header := "X-Api-Key: " + key
	config := func(config string) string {
		return strings.Replace(config, "file "+b.File(), "file "+origin, 1)
	}
	s := start(t, h, []string{"vinr"}, vinr)
	if err := s.reload(h, config, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("the directory is not there yet", 503, header)
	unpack()
	s.within("the directory is there", 200, header)
	manifest, err := os.ReadFile(filepath.Join(origin, "v1", "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RotatePublisher(context.Background()); err != nil { // another policy note
		t.Fatal(err)
	}
	unpack()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// As a crash between the two would leave it.
	if err := disk.ReplaceBytes(filepath.Join(origin, "v1", "manifest"), 0o644, manifest); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.dir, "state")); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(h, config, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("nothing is remembered", 503, header)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// An edge that remembers goes on.
	if err := s.reload(h, same, vinr, "vinr"); err != nil { // from the file, which is whole
		t.Fatal(err)
	}
	s.within("from the file", 200, header)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(h, config, vinr, "vinr"); err != nil {
		t.Fatal(err)
	}
	s.within("from what is remembered", 200, header)
	if _, err := b.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	unpack()
	s.within("revoked", 401, header)
}

// Two bundles in one process know nothing of each other's keys.
func TestTwoBundles(t *testing.T) {
	h := newHome(t)
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		if _, err := h.Init(context.Background(), control.NewBundle{
			Name: name, Audience: bundle.DefaultAudience, Policy: document, File: name, Hosts: map[string][]string{"": {"api.vinr.com", name + ".example"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	id, key := h.create("one", control.NewKey{Kind: "secret", Environment: "live"})
	h.create("two", control.NewKey{Kind: "secret", Environment: "live"})
	s := load(t, h, []string{"one", "two"}, func(*server) string {
		return "http://one.example, https://one.example {\n\tkeystile one\n\trespond ok\n}\nhttp://two.example, https://two.example {\n\tkeystile two\n\trespond ok\n}\n"
	})
	ask := func(host string) int {
		for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			response, err := s.client().Do(newRequest(t, "GET", "https://"+host+"/x", "Authorization: Bearer "+key))
			if err == nil {
				response.Body.Close()
				return response.StatusCode
			}
			if time.Since(begin) > patience {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		if one, two := ask("one.example"), ask("two.example"); one != 200 || two != 401 {
			t.Fatalf("%d by its own bundle, %d by another", one, two)
		}
	}
	if _, err := h.bundle("one").Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ask("one.example") != 401; time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("the revocation is not in use")
		}
	}
}

// A bundle that this clock finds too early is taken up once it is not, though its
// file does not change.
func TestEarlyBundle(t *testing.T) {
	dir := t.TempDir()
	p, err := policies.Compile("vinr", compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	version := time.Now().Add(3 * time.Second).UnixMilli()
	publisher, err := bundletest.NewPublisher(p, "vinr", bundle.DefaultAudience, version)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := publisher.Pack(version, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "vinr.keystile")
	if err := os.WriteFile(file, packed, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHome(t, "vinr")
	s := start(t, h, []string{"vinr"}, withMetrics)
	config := func(config string) string {
		b := h.bundle("vinr")
		config = strings.Replace(config, "file "+b.File(), "file "+file+"\nclock_skew 1s\nsigner "+publisher.Policy.Key, 1)
		return strings.Replace(config, "state "+filepath.Join(h.dir, "state", "vinr"), "state "+filepath.Join(dir, "state"), 1)
	}
	refused := s.metric(`bundles_refused_total{bundle="vinr",cause="future"}`)
	if err := s.reload(h, config, withMetrics, "vinr"); err != nil {
		t.Fatal(err)
	}
	if time.Now().UnixMilli() < version-1500 {
		if got := s.do("GET", "https://api.vinr.com/v1/payments", "X-Api-Key: x").StatusCode; got != 503 {
			t.Errorf("a bundle of the future gives %d", got)
		}
	}
	s.within("the clock has come up", 401, "X-Api-Key: x")
	if got := s.metric(`bundles_refused_total{bundle="vinr",cause="future"}`); got != fmt.Sprint(number(t, refused)+1) {
		t.Errorf("refused %s times, after %s: it should be told once", got, refused)
	}
}

func number(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}
