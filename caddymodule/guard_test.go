package caddymodule

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/policies"
)

// publisher signs bundles of the default policy.
type publisher struct {
	bundletest.Publisher
	t *testing.T
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{t: t}
	p.Policy, p.Manifest = bundletest.NewSigner("policy"), bundletest.NewSigner("publisher")
	p.publish(bundle.DefaultAudience, hourAgo)
	return p
}

// hourAgo is when the tests' first versions are signed.
var hourAgo = time.Now().Add(-time.Hour)

// publish signs a policy note for an audience.
func (p *publisher) publish(audience string, at time.Time) {
	p.t.Helper()
	document, err := policies.Compile("default", compile.Options{Hosts: map[string][]string{"": {"api.test"}}})
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.Publish(document, "shop", audience, at.UnixMilli()); err != nil {
		p.t.Fatal(err)
	}
}

// pack is a packed file of records.
func (p *publisher) pack(at time.Time, records []bundle.Record) []byte {
	p.t.Helper()
	packed, err := p.Pack(at.UnixMilli(), records)
	if err != nil {
		p.t.Fatal(err)
	}
	return packed
}

// guard is one that has begun, with what it logs.
func (p *publisher) guard(dir, audience string) (*guard, *observer.ObservedLogs) {
	p.t.Helper()
	level, logs := observer.New(zapcore.InfoLevel)
	e, err := newGuard(&resolved{
		Name: "shop", Bundle: Bundle{File: filepath.Join(dir, "shop.keystile"), Threshold: 1, Audience: audience},
		Signers: []string{p.Policy.Key}, State: filepath.Join(dir, "state"),
	}, zap.New(level))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := e.begin(); err != nil {
		p.t.Fatal(err)
	}
	return e, logs
}

// end ends an edge.
func (p *publisher) end(e *guard) {
	p.t.Helper()
	if err := e.Destruct(); err != nil {
		p.t.Error(err)
	}
}

// logged waits for a line of an edge's log.
func (p *publisher) logged(logs *observer.ObservedLogs, message, err string) {
	p.t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		for _, l := range logs.FilterMessageSnippet(message).All() {
			if text, _ := l.ContextMap()["error"].(string); strings.Contains(text, err) {
				return
			}
		}
		if time.Since(begin) > 30*time.Second {
			p.t.Fatalf("it does not log %q: %+v", message, logs.All())
		}
	}
}

func (p *publisher) write(dir string, pack []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "shop.keystile"), pack, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// version waits until the edge uses a version.
func (p *publisher) version(e *guard, want time.Time) {
	p.t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		b := e.verifier.Bundle()
		if b != nil && b.Manifest.Version == want.UnixMilli() {
			return
		}
		if time.Since(begin) > 30*time.Second {
			p.t.Fatalf("the edge uses %+v", b)
		}
	}
}

// request is one with an API key.
func request(key string) *core.Request {
	return &core.Request{
		TLS: true, Method: "GET", Authority: "api.test", Path: "/x", Headers: core.Lines{{Name: "Authorization", Value: "Bearer " + key}},
	}
}

// large is records that make a packed file of more than is read as a whole, with
// the API keys of some.
func large(t *testing.T) (records []bundle.Record, keys []string) {
	t.Helper()
	leaves := make(map[byte]bool)
	for i := range 12_000 {
		secret, err := credential.Generate("sk", "live")
		if err != nil {
			t.Fatal(err)
		}
		digest := secret.Digest()
		if leaf := digest[0] >> 2; i%500 == 0 && !leaves[leaf] {
			leaves[leaf] = true // each key in a leaf of its own: 190 keys begin with the same six bits
			keys = append(keys, secret.Reveal())
		}
		r := bundle.Record{Digest: digest, KeyID: fmt.Sprintf("key_%d", i), Kind: "secret", Environment: "live", Status: bundle.Active}
		for n := range 15 {
			r.Scopes = append(r.Scopes, fmt.Sprintf("%d_%02d_%s", i, n, strings.Repeat("x", 85)))
		}
		records = append(records, r)
	}
	return records, keys
}

// A packed file of which nodes are read when they are needed is written over in
// place. A key that was not used before needs a node that is there no more: the
// edge looks at once, and no request is denied. What it has read stays.
func TestNodesWrittenOver(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	records, keys := large(t)
	p.write(dir, p.pack(hourAgo, records))
	for i := range records {
		records[i].Status = bundle.Deprecated // so that all nodes change
	}
	later := p.pack(hourAgo.Add(time.Minute), records)
	if len(later) <= 16<<20 {
		t.Fatalf("the test is of no use: %d bytes", len(later))
	}
	e, logs := p.guard(dir, bundle.DefaultAudience)
	defer p.end(e)
	for _, key := range keys[:2] {
		if d := e.decide(request(key)); d.Reason != policy.OK {
			t.Fatalf("%s: %v", d.Reason, d.Err)
		}
	}
	p.write(dir, later)
	for _, key := range append(keys[2:], keys[:2]...) {
		if d := e.decide(request(key)); d.Reason != policy.OK || d.Key.Status != bundle.Deprecated {
			t.Fatalf("after it was written over: %s, %v", d.Reason, d.Err)
		}
	}
	e.verifier.Wait()
	p.write(dir, []byte("garbage"))
	p.logged(logs, "refused", "packed file")
	for i, key := range keys {
		if d := e.decide(request(key)); d.Reason != policy.OK {
			t.Errorf("key %d, which was used before the file was ruined: %s, %v", i, d.Reason, d.Err)
		}
	}
}

// A packed file that is being written over in place is not used before it is whole, so
// that what is in use stays in use.
func TestHalfWritten(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	records, keys := large(t)
	records = records[:2000]
	p.write(dir, p.pack(hourAgo, records))
	e, logs := p.guard(dir, bundle.DefaultAudience)
	defer p.end(e)
	good := func(what string, status bundle.Status) {
		t.Helper()
		for i, key := range keys[:4] {
			if d := e.decide(request(key)); d.Reason != policy.OK || d.Key.Status != status {
				t.Fatalf("%s: key %d: %v", what, i, d)
			}
		}
	}
	good("before", bundle.Active)
	for i := range records {
		records[i].Status = bundle.Deprecated
	}
	later := p.pack(hourAgo.Add(time.Minute), records)
	f, err := os.OpenFile(filepath.Join(dir, "shop.keystile"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(later[:len(later)/2]); err != nil {
		t.Fatal(err)
	}
	p.logged(logs, "refused", "node")
	good("half-written", bundle.Active)
	if _, err := f.Write(later[len(later)/2:]); err != nil {
		t.Fatal(err)
	}
	p.version(e, hourAgo.Add(time.Minute))
	good("whole", bundle.Deprecated)
}

// A state whose lock another process keeps holds up nothing: the edge begins, takes
// later bundles over and says once that it cannot remember them. It remembers the
// last one when the lock is free.
func TestStateLockedElsewhere(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	p.write(dir, p.pack(hourAgo, nil))
	unlock, err := lockedfile.MutexAt(filepath.Join(dir, "state.lock")).Lock()
	if err != nil {
		t.Fatal(err)
	}
	e, logs := p.guard(dir, bundle.DefaultAudience)
	defer p.end(e)
	var last time.Time
	for i := range 10 {
		last = hourAgo.Add(time.Duration(i+1) * time.Second)
		p.write(dir, p.pack(last, nil))
		p.version(e, last)
	}
	if told := logs.FilterMessageSnippet("cannot be written").Len(); told != 1 || !e.memory.degraded.Load() {
		t.Errorf("it is told %d times", told)
	}
	unlock()
	p.logged(logs, "the state is written again", "")
	if m, err := disk.NewState(filepath.Join(dir, "state"), e.trust).Last(); err != nil || m == nil || m.Manifest.Version != last.UnixMilli() {
		t.Errorf("remembered: %+v, %v", m, err)
	}
}

// What another process has remembered counts: neither a bundle that is older nor one
// of the same version with another text is used.
func TestWhatAnotherHasRemembered(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	p.write(dir, p.pack(hourAgo, nil))
	e, logs := p.guard(dir, bundle.DefaultAudience)
	defer p.end(e)
	later := hourAgo.Add(time.Minute)
	remembered, err := bundle.OpenPack(bytes.NewReader(p.pack(later, nil)), int64(len(p.pack(later, nil))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.trust.Open(remembered.Notes)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.NewState(filepath.Join(dir, "state"), e.trust).Raise(m); err != nil {
		t.Fatal(err)
	}
	p.write(dir, p.pack(later.Add(-time.Second), nil))
	p.logged(logs, "refused", bundle.ErrRollback.Error())
	p.write(dir, p.pack(later, []bundle.Record{{Digest: credential.DigestOf("x"), KeyID: "key_x", Kind: "secret", Environment: "live", Status: bundle.Active}}))
	p.logged(logs, "refused", bundle.ErrForked.Error())
	if got := e.verifier.Bundle().Manifest.Version; got != hourAgo.UnixMilli() {
		t.Errorf("version %d is in use", got)
	}
}

// An edge that goes to another audience and back refuses what is older than what
// it had accepted there.
func TestAudienceAndBack(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	use := func(audience string, at time.Time) *observer.ObservedLogs {
		t.Helper()
		p.publish(audience, hourAgo)
		p.write(dir, p.pack(at, nil))
		e, logs := p.guard(dir, audience)
		defer p.end(e)
		if b := e.verifier.Bundle(); b != nil && b.Manifest.Version != at.UnixMilli() {
			t.Errorf("version %d is in use", b.Manifest.Version)
		}
		return logs
	}
	refused := func(logs *observer.ObservedLogs) int { return logs.FilterMessageSnippet("refused").Len() }
	later := hourAgo.Add(time.Minute)
	if logs := use("east", later); refused(logs) > 0 {
		t.Errorf("east: %+v", logs.All())
	}
	if logs := use("west", hourAgo); refused(logs) > 0 {
		t.Errorf("west, whose bundle is older: %+v", logs.All())
	}
	logs := use("east", hourAgo)
	p.logged(logs, "refused", bundle.ErrRollback.Error())
	if logs := use("west", hourAgo); refused(logs) > 0 {
		t.Errorf("west again: %+v", logs.All())
	}
}

// A policy note that is dated in the future is refused, and bars nothing. An edge
// that has accepted one gets out without its state.
func TestNoteOfTheFuture(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	p.publish(bundle.DefaultAudience, time.Now().Add(time.Hour))
	ahead := p.pack(hourAgo.Add(2*time.Minute), nil)
	p.write(dir, ahead)
	e, logs := p.guard(dir, bundle.DefaultAudience)
	p.logged(logs, "refused", bundle.ErrFuture.Error())
	p.publish(bundle.DefaultAudience, hourAgo)
	right := p.pack(hourAgo.Add(time.Minute), nil)
	p.write(dir, right)
	p.version(e, hourAgo.Add(time.Minute))
	// Its clock was ahead when the note came.
	pack, err := bundle.OpenPack(bytes.NewReader(ahead), int64(len(ahead)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.trust.Open(pack.Notes)
	if err != nil {
		t.Fatal(err)
	}
	p.end(e)
	state := filepath.Join(dir, "state")
	if err := disk.NewState(state, e.trust).Raise(m); err != nil {
		t.Fatal(err)
	}
	e, logs = p.guard(dir, bundle.DefaultAudience)
	p.end(e)
	p.logged(logs, "refused", bundle.ErrRollback.Error())
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	e, logs = p.guard(dir, bundle.DefaultAudience)
	defer p.end(e)
	if b := e.verifier.Bundle(); b == nil || logs.FilterMessageSnippet("refused").Len() > 0 {
		t.Errorf("without its state: %+v", logs.All())
	}
}
