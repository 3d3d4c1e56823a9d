package plugin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
)

// notes are those that a bundle's directory has.
func notes(t *testing.T, b *control.Bundle) (n bundle.Notes) {
	t.Helper()
	for file, to := range map[string]*[]byte{"policy": &n.Policy, "manifest": &n.Manifest} {
		raw, err := os.ReadFile(filepath.Join(b.Directory, "v1", file))
		if err != nil {
			t.Fatal(err)
		}
		*to = raw
	}
	return n
}

// count is how many lines of the log hold a text.
func (f *fake) count(text string) (n int) {
	for _, l := range f.log {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

// A worker whose clock was an hour ahead has left a lease: the others do not wait
// for its end, nor does that worker for what it has put off itself.
func TestClockSetBack(t *testing.T) {
	b, _ := shop(t)
	s := newShared()
	one := newWorker(t, s, b)
	right := one.now
	one.tick(time.Hour)
	if len(one.calls) != 1 {
		t.Fatalf("%d calls", len(one.calls))
	}
	one.source().failed = one.now
	one.calls, one.now = nil, right
	two := newWorker(t, s, b)
	two.now = right
	for again := range 3 {
		asked := 0
		for range 20 {
			for _, w := range []*worker{one, two} {
				w.tick(time.Second)
				asked += len(w.calls)
				w.serve(t, b.Directory)
			}
		}
		// Every 5 to 6.25 seconds, by one of them.
		if asked < 3 || asked > 12 {
			t.Errorf("%d: after the clock was set back it was asked %d times in 20 seconds", again, asked)
		}
		for i, w := range []*worker{one, two} {
			if told := w.count("further ahead"); told > 1 {
				t.Errorf("worker %d tells it %d times", i, told)
			}
		}
		s.data[one.source().leaseKey] = binary.BigEndian.AppendUint64(nil, uint64(one.now.Add(time.Hour).UnixMilli()))
	}
	if one.count("further ahead")+two.count("further ahead") == 0 {
		t.Error("it is not told")
	}
	for i, w := range []*worker{one, two} {
		if w.edges[0].verifier.Bundle() == nil {
			t.Errorf("worker %d has no bundle: %q", i, w.fake.log)
		}
	}
	used := newLastUsed(newFake(s), "shop")
	used.now, used.flushed = func() time.Time { return right }, right.Add(time.Hour)
	used.note("key_a")
	if used.tick(); len(used.seen) != 0 {
		t.Error("when keys were last used is not shared until the clock is there again")
	}
}

func TestPast(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		since time.Time
		want  bool
	}{
		"never": {time.Time{}, true}, "now": {now, false}, "nearly": {now.Add(-59 * time.Second), false},
		"just": {now.Add(-time.Minute), true}, "set back": {now.Add(time.Millisecond), true},
	} {
		if got := past(now, tt.since, time.Minute); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What is found may follow what was found before, and is not of the future by the
// clock skew that is configured.
func TestFoundNotes(t *testing.T) {
	b, _ := shop(t)
	first := notes(t, b)
	if err := b.Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	second := notes(t, b)
	for name, tt := range map[string]struct {
		skew   string
		behind time.Duration
		notes  []bundle.Notes
		want   error
	}{
		"the same again":      {"1m", 0, []bundle.Notes{first, first}, errSame},
		"a later one":         {"1m", 0, []bundle.Notes{first, second}, nil},
		"an older one":        {"1m", 0, []bundle.Notes{second, first}, bundle.ErrRollback},
		"within the skew":     {"1m", 30 * time.Second, []bundle.Notes{first}, nil},
		"of the future":       {"1m", 2 * time.Minute, []bundle.Notes{first}, bundle.ErrFuture},
		"a large skew":        {"1h", 30 * time.Minute, []bundle.Notes{first}, nil},
		"beyond a large skew": {"1h", 2 * time.Hour, []bundle.Notes{first}, bundle.ErrFuture},
		"a small skew":        {"1s", 30 * time.Second, []bundle.Notes{first}, bundle.ErrFuture},
	} {
		w := newWorkerWith(t, newShared(), b, map[string]any{"clock_skew": tt.skew})
		w.now = w.now.Add(-tt.behind)
		var err error
		for _, n := range tt.notes {
			err = w.source().raise(n)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, not %v", name, err, tt.want)
		}
	}
}

// What all workers share is only ever raised.
func TestShareOnlyRaises(t *testing.T) {
	b, _ := shop(t)
	s := newShared()
	late, early := newWorker(t, s, b), newWorker(t, s, b)
	if err := early.source().raise(notes(t, b)); err != nil {
		t.Fatal(err)
	}
	if err := b.Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := late.source().raise(notes(t, b)); err != nil {
		t.Fatal(err)
	}
	late.source().share()
	early.source().share()
	shared, err := bundle.ParseState(s.data[late.source().notesKey])
	if err != nil || string(shared.Manifest) != string(late.source().found.Notes.Manifest) {
		t.Errorf("an older bundle is shared over a later one: %v", err)
	}
}

// After a failure no origin is asked by the entity tag of another's answer.
func TestEntityTag(t *testing.T) {
	b, _ := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	w.tick(10 * time.Second)
	if len(w.calls) != 1 || w.calls[0].etag == "" {
		t.Fatalf("it asks for more than what is new: %+v", w.calls)
	}
	w.calls[0].done("500", "", nil)
	if len(w.calls) != 2 || w.calls[1].etag != "" || w.calls[1].cluster == w.calls[0].cluster {
		t.Errorf("after a failure: %+v", w.calls)
	}
}

// A bundle that is refused is not opened again at every tick.
func TestRefusedBundleWaits(t *testing.T) {
	b, _ := shop(t)
	w := newWorkerWith(t, newShared(), b, map[string]any{"min_version": 1 << 52})
	for range 100 {
		if w.tick(tickInterval); w.count("a bundle was refused") > 0 {
			break
		}
		w.serve(t, b.Directory)
	}
	if w.source().open(nil) != nil {
		t.Error("it is opened again at once")
	}
	w.now = w.now.Add(retryInterval)
	if w.source().open(nil) == nil {
		t.Error("it is not opened again after a while")
	}
	w.settle(t, b.Directory)
	if told := w.count("a bundle was refused"); told != 1 {
		t.Errorf("it is told %d times", told)
	}
}

// It is ready when its bundle is in force, and not before.
func TestReady(t *testing.T) {
	b, _ := shop(t)
	w := newWorker(t, newShared(), b)
	ready := func(want uint32, tls bool) {
		t.Helper()
		w.fake.request("GET", "https://api.test/ready")
		if delete(w.properties, "connection.tls_version"); tls {
			w.properties["connection.tls_version"] = "TLSv1.3"
		}
		if w.Request(1, false) != Stop || w.status != want || want != 200 && !strings.HasPrefix(w.body, "shop: ") {
			t.Errorf("TLS %v: %d %q, not %d", tls, w.status, w.body, want)
		}
	}
	for _, tls := range []bool{true, false} {
		ready(503, tls)
	}
	w.settle(t, b.Directory)
	for _, tls := range []bool{true, false} {
		ready(200, tls)
	}
}

// Limits of keys to addresses are about the connection's other end; an address from
// X-Forwarded-For, which has no port, counts only where that is configured.
func TestWhoseAddress(t *testing.T) {
	b, _ := shop(t)
	for name, tt := range map[string]struct{ clientIP, address, want string }{
		"peer":                   {"peer", "192.0.2.1:4711", "192.0.2.1"},
		"peer, from a header":    {"peer", "192.0.2.1:0", "invalid IP"},
		"default, from a header": {"", "192.0.2.1:0", "invalid IP"},
		"forwarded":              {"forwarded", "192.0.2.1:0", "192.0.2.1"},
		"forwarded, and nothing": {"forwarded", "192.0.2.1:4711", "192.0.2.1"},
		"no address":             {"forwarded", "", "invalid IP"},
	} {
		f := newFake(newShared())
		p := New(f)
		if err := p.Configure(configuration(t, inline(t, b), map[string]any{"client_ip": tt.clientIP})); err != nil {
			t.Fatal(err)
		}
		f.properties["source.address"] = tt.address
		if got := p.clientIP().String(); got != tt.want {
			t.Errorf("%s: %s, not %s", name, got, tt.want)
		}
	}
}

// Every line of the log is a text and a JSON object, whatever is in it.
func TestLogLines(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.dispatch = errors.New("\x00\x07\x7f\n\"\\ \u2028 \U0001f511 \xff {")
	w.tick(tickInterval)
	w.dispatch = nil
	w.tick(10 * time.Second)
	w.settle(t, b.Directory)
	w.fake.request("GET", "https://api.test/\x01", "authorization: Bearer "+key)
	w.Request(1, false)
	w.panics = true
	w.Request(2, false)
	w.panics, w.fails = false, true
	w.Request(3, false)
	var seen []string
	for _, line := range w.fake.log {
		what, fields, ok := strings.Cut(line, " {")
		var object map[string]any
		if !ok || !strings.HasPrefix(what, "keystile: ") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q", line)
		} else if err := json.Unmarshal([]byte("{"+fields), &object); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		seen = append(seen, strings.TrimPrefix(what, "keystile: "))
	}
	for _, want := range []string{"an origin gives no bundle", "no origin gives a bundle", "bundle in use", "requests are decided", "denied", "panic", "the request's headers cannot be read"} {
		if !slices.Contains(seen, want) {
			t.Errorf("no line says %q: %q", want, seen)
		}
	}
}
