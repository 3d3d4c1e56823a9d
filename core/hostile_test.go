package core_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/policy"
)

var everyBit = flag.Bool("every-bit", false, "flip every bit of the hostile bundle, not a sample of them")

// hostile is a bundle of 50 keys that two signers have signed, as a packed file,
// with 200 requests and what the good bundle says of them.
type hostile struct {
	pack   []byte
	trust  *bundle.Trust
	now    time.Time
	probes []*core.Request
	want   []policy.Reason
}

func newHostile(t testing.TB) *hostile {
	t.Helper()
	h := &hostile{now: time.Now()}
	one, two, publisher := bundletest.NewSigner("one"), bundletest.NewSigner("two"), bundletest.NewSigner("publisher")
	publication, err := bundle.Publish(compiled(t, "default"), "default", "edge", h.now.UnixMilli(), []string{publisher.Key}, one, two)
	if err != nil {
		t.Fatal(err)
	}
	if h.trust, err = bundle.NewTrust("default", "edge", 2, one.Key, two.Key); err != nil {
		t.Fatal(err)
	}
	var records []bundle.Record
	for i := range 50 {
		key, rec := newKey(t, fmt.Sprintf("key_%d", i))
		rec.Tenant = fmt.Sprintf("tenant_%d", i%7)
		switch i % 5 {
		case 1:
			rec.Status = bundle.Revoked
		case 2:
			rec.Expires = h.now.Unix() - 1
		case 3:
			rec.Endpoints = []string{"GET /x"}
		}
		records = append(records, rec)
		unknown, _ := newKey(t, "")
		post, plain := request(key), request(key)
		post.Method, plain.TLS = "POST", false
		h.probes = append(h.probes, request(key), post, plain, request(unknown))
	}
	signed, err := publication.Sign(records, h.now.UnixMilli(), bundle.DefaultLife, publisher)
	if err != nil {
		t.Fatal(err)
	}
	var pack bytes.Buffer
	if err := signed.Pack(&pack); err != nil {
		t.Fatal(err)
	}
	h.pack = pack.Bytes()
	reasons := make(map[policy.Reason]int)
	v := h.verifier(t, h.pack)
	for _, r := range h.probes {
		d := v.Verify(r)
		h.want = append(h.want, d.Reason)
		reasons[d.Reason]++
	}
	if len(h.probes) != 200 || reasons[policy.OK] < 40 || len(reasons) < 5 {
		t.Fatalf("the probes show little: %v", reasons)
	}
	return h
}

// verifier decides by a packed file alone: it caches nothing. It is nil if the
// file is refused.
func (h *hostile) verifier(t testing.TB, pack []byte) *core.Verifier {
	t.Helper()
	opened, err := bundle.OpenPack(bytes.NewReader(pack), int64(len(pack)))
	if err == nil {
		var b *bundle.Bundle
		if b, err = bundle.Open(opened.Notes, opened.Compiled, opened, h.trust); err == nil {
			v, err := core.New(core.Config{RecordCache: 1, NodeCache: 1, TokenCache: 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Activate(b); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	if len(err.Error()) < 10 {
		t.Errorf("the error names nothing: %v", err)
	}
	return nil
}

// probe asks all 200 requests by a damaged file. Each gets what the good file
// says, or a denial that names the node.
func (h *hostile) probe(t testing.TB, what string, pack []byte) (opened bool) {
	t.Helper()
	v := h.verifier(t, pack)
	if v == nil {
		return false
	}
	for i, r := range h.probes {
		d := v.Verify(r)
		if d.Reason == h.want[i] {
			continue
		}
		var node *bundle.NodeError
		if d.Outcome == core.Allow || d.Status != 503 || !errors.As(d.Err, &node) {
			t.Errorf("%s: request %d is %s (%v), and was %s", what, i, d.Reason, d.Err, h.want[i])
		}
	}
	return true
}

// R54, R58, R59: a bundle of which any one bit is flipped is refused with a named
// error, or decides as the good one, or denies with the node's name. The bundle
// in use goes on serving.
func TestEveryBitFlipped(t *testing.T) {
	h := newHostile(t)
	inUse := h.verifier(t, h.pack)
	step := 97
	if *everyBit {
		step = 1
	}
	var refused, opened atomic.Int64
	var group sync.WaitGroup
	bits := make(chan int, 64)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for bit := range bits {
				damaged := bytes.Clone(h.pack)
				damaged[bit/8] ^= 1 << (bit % 8)
				if h.probe(t, fmt.Sprintf("bit %d of byte %d", bit%8, bit/8), damaged) {
					opened.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for bit := 0; bit < 8*len(h.pack); bit += step {
		bits <- bit
	}
	close(bits)
	group.Wait()
	t.Logf("%d bytes: %d flips refused, %d opened", len(h.pack), refused.Load(), opened.Load())
	if refused.Load() == 0 || opened.Load() == 0 {
		t.Error("the flips show little")
	}
	for i, r := range h.probes {
		if d := inUse.Verify(r); d.Reason != h.want[i] {
			t.Errorf("request %d by the bundle in use is %s, and was %s", i, d.Reason, h.want[i])
		}
	}
}

// A file that was cut off, at any length, is refused: its index is its end.
func TestEveryTruncation(t *testing.T) {
	h := newHostile(t)
	for n := range h.pack {
		if h.probe(t, fmt.Sprintf("cut to %d bytes", n), h.pack[:n]) {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
	if h.probe(t, "longer", append(slices.Clone(h.pack), 0)) {
		t.Error("a byte more: opened")
	}
}

// shrinking is a file that is cut off, or changed, while it is open.
type shrinking struct{ data []byte }

func (s *shrinking) ReadAt(b []byte, at int64) (int, error) {
	return bytes.NewReader(s.data).ReadAt(b, at)
}

// A file that is truncated or overwritten under an open bundle costs denials that
// name the node, and nothing else.
func TestChangedUnderneath(t *testing.T) {
	h := newHostile(t)
	for name, damage := range map[string]func([]byte) []byte{
		"truncated": func(b []byte) []byte { return b[:100] },
		"emptied":   func([]byte) []byte { return nil },
		"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
		"shifted":   func(b []byte) []byte { return append([]byte{0}, b...) },
	} {
		file := &shrinking{h.pack}
		pack, err := bundle.OpenPack(file, int64(len(h.pack)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(pack.Notes, pack.Compiled, pack, h.trust)
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier(t, core.Config{})
		if err := v.Activate(b); err != nil {
			t.Fatal(err)
		}
		file.data = damage(h.pack)
		denied := 0
		for i, r := range h.probes {
			d := v.Verify(r)
			if d.Reason == h.want[i] {
				continue
			}
			var node *bundle.NodeError
			if d.Outcome == core.Allow || !errors.As(d.Err, &node) || node.Node != b.Manifest.Root {
				t.Errorf("%s: request %d is %s (%v)", name, i, d.Reason, d.Err)
			}
			denied++
		}
		if denied == 0 {
			t.Errorf("%s: nothing was denied", name)
		}
	}
}

// A clock that jumps, either way and over every border, is followed at once; a
// bundle that it makes look early is refused, and taken later.
func TestClockJumps(t *testing.T) {
	now := time.Now()
	c := &clock{at: now}
	v := newVerifier(t, core.Config{Now: c.now})
	p := newPublisher(t, compiled(t, "default"), now)
	key, rec := newKey(t, "key_1")
	if err := v.Activate(p.bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	next := p.bundle(now.Add(time.Hour), rec)
	for _, tt := range []struct {
		name   string
		at     time.Duration
		want   policy.Reason
		status error
		early  bool
	}{
		{"as signed", 0, policy.OK, nil, true},
		{"forward over the expiry", 48 * time.Hour, policy.BundleExpired, bundle.ErrExpired, false},
		{"back to before it was signed", -48 * time.Hour, policy.StaleBundle, bundle.ErrFuture, true},
		{"back to 1970", -time.Duration(now.UnixNano()), policy.StaleBundle, bundle.ErrFuture, true},
		{"right again", time.Minute, policy.OK, nil, true},
		{"within the skew of the next", time.Hour - bundle.DefaultClockSkew, policy.OK, nil, false},
	} {
		c.set(now.Add(tt.at))
		for range 2 { // the second finds the record in the cache
			wantReason(t, tt.name, v.Verify(request(key)), tt.want)
			v.Wait()
		}
		if err := v.Status(); !errors.Is(err, tt.status) || (err == nil) != (tt.status == nil) {
			t.Errorf("%s: status %v", tt.name, err)
		}
		if err := v.Check(next); errors.Is(err, bundle.ErrFuture) != tt.early {
			t.Errorf("%s: the next bundle: %v", tt.name, err)
		}
	}
	if err := v.Activate(next); err != nil {
		t.Error(err)
	}
	c.set(now)
	wantReason(t, "behind the active version", v.Verify(request(key)), policy.StaleBundle)
}

// Where no state survives, the floor is what an older bundle meets.
func TestFloor(t *testing.T) {
	now := time.Now()
	p := newPublisher(t, compiled(t, "default"), now)
	b := p.bundle(now.Add(time.Second))
	version, policyVersion := b.Manifest.Version, b.PolicyNote.Version
	for name, tt := range map[string]struct {
		floor bundle.MinVersion
		want  error
	}{
		"none":                   {bundle.MinVersion{}, nil},
		"at it":                  {bundle.MinVersion{Version: version, PolicyVersion: policyVersion}, nil},
		"below":                  {bundle.MinVersion{Version: version + 1}, bundle.ErrRollback},
		"below of the policy":    {bundle.MinVersion{PolicyVersion: policyVersion + 1}, bundle.ErrRollback},
		"the other's is no help": {bundle.MinVersion{Version: version + 1, PolicyVersion: policyVersion}, bundle.ErrRollback},
	} {
		v := newVerifier(t, core.Config{MinVersion: tt.floor})
		if err := v.Activate(b); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if (v.Bundle() != nil) != (tt.want == nil) {
			t.Errorf("%s: in use is %v", name, v.Bundle())
		}
	}
	if _, err := core.New(core.Config{MinVersion: bundle.MinVersion{Version: -1}}); err == nil {
		t.Error("a negative floor was taken")
	}
}
