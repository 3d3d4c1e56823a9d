package plugin

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"google.golang.org/protobuf/proto"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/policies"
)

// shared is what all workers of a fake proxy share.
type shared struct {
	data map[string][]byte
	cas  map[string]uint32
}

func newShared() *shared { return &shared{make(map[string][]byte), make(map[string]uint32)} }

// fake is a proxy in which a test sees and decides everything. What the filter
// does in a real one is shown by the tests of the package above.
type fake struct {
	*shared
	properties map[string]string
	lines      []core.Header
	trailers   []core.Header
	linesRead  int
	panics     string // with what it panics, if it does
	fails      bool   // to give headers
	failure    error  // of answers; errFake of what else fails

	status   uint32
	body     string
	headers  [][2]string
	set      map[string]string
	removed  []string
	added    []string
	resumed  []uint32
	ended    []uint32 // requests that cannot be selected
	state    string
	log      []string
	calls    []call
	dispatch error
	ticks    uint32
}

type call struct {
	cluster, path, etag string
	done                func(status, etag string, body []byte)
}

func newFake(s *shared) *fake {
	return &fake{shared: s, properties: map[string]string{"connection.tls_version": "TLSv1.3", "source.address": "192.0.2.1:4711"}, set: make(map[string]string)}
}

var errFake = errors.New("the proxy fails")

func (f *fake) RequestHeaders() ([]core.Header, error) {
	f.linesRead++
	if f.panics != "" {
		panic(f.panics)
	}
	if f.fails {
		return nil, cmp.Or(f.failure, errFake)
	}
	return f.lines, nil
}
func (f *fake) RemoveRequestHeader(name string) error {
	f.removed = append(f.removed, name)
	return nil
}
func (f *fake) AddRequestHeader(name, value string) error {
	f.added = append(f.added, name+": "+value)
	return nil
}
func (f *fake) RequestTrailers() ([]core.Header, error) { return f.trailers, nil }
func (f *fake) RemoveRequestTrailer(name string) error {
	f.removed = append(f.removed, "trailer "+name)
	return nil
}
func (f *fake) AddRequestTrailer(name, value string) error {
	f.added = append(f.added, "trailer "+name+": "+value)
	return nil
}
func (f *fake) SetRequestHeader(name, value string) error {
	f.set[name] = value
	return nil
}
func (f *fake) Respond(status uint32, headers [][2]string, body []byte) error {
	f.status, f.headers, f.body = status, slices.Clone(headers), string(body)
	return f.failure
}
func (f *fake) Select(request uint32) error {
	if slices.Contains(f.ended, request) {
		return errFake
	}
	return nil
}
func (f *fake) Resume(request uint32) error { f.resumed = append(f.resumed, request); return nil }
func (f *fake) Dispatch(cluster string, headers [][2]string, _ time.Duration, _ int, done func(status, etag string, body []byte)) error {
	if f.dispatch != nil {
		return f.dispatch
	}
	c := call{cluster: cluster, done: done}
	for _, h := range headers {
		switch h[0] {
		case ":path":
			c.path = h[1]
		case "if-none-match":
			c.etag = h[1]
		}
	}
	f.calls = append(f.calls, c)
	return nil
}
func (f *fake) SharedData(key string) ([]byte, uint32, error) {
	if f.cas[key] == 0 {
		return nil, 0, errFake
	}
	return f.data[key], f.cas[key], nil
}
func (f *fake) SetSharedData(key string, value []byte, cas uint32) error {
	if cas != 0 && cas != f.cas[key] {
		return errFake
	}
	f.data[key], f.cas[key] = slices.Clone(value), f.cas[key]+1
	return nil
}
func (f *fake) Property(path ...string) []byte {
	if v, ok := f.properties[strings.Join(path, ".")]; ok {
		return []byte(v)
	}
	return nil
}
func (f *fake) SetProperty(_ string, value []byte) error { f.state = string(value); return nil }
func (f *fake) Log(_ Level, line string)                 { f.log = append(f.log, line) }
func (f *fake) Counter(string) Counter                   { return nothing{} }
func (f *fake) Gauge(string) Gauge                       { return nothing{} }
func (f *fake) Tick(ms uint32) error                     { f.ticks = ms; return nil }

type nothing struct{}

func (nothing) Add(uint64) {}
func (nothing) Set(int64)  {}

func (f *fake) request(method, url string, lines ...string) {
	rest := strings.TrimPrefix(url, "https://")
	host, path, _ := strings.Cut(rest, "/")
	f.lines = []core.Header{{Name: ":method", Value: method}, {Name: ":authority", Value: host}, {Name: ":path", Value: "/" + path}, {Name: ":scheme", Value: "https"}}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		f.lines = append(f.lines, core.Header{Name: name, Value: value})
	}
	f.properties["request.host"], f.properties["request.path"] = host, "/"+path
	f.status, f.body, f.set, f.removed, f.added, f.state = 0, "", make(map[string]string), nil, nil, ""
}

// shop is a bundle of the default policy with a directory.
func shop(t *testing.T) (b *control.Bundle, key string) {
	t.Helper()
	home, err := control.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = home.Init(context.Background(), control.NewBundle{
		Name: "shop", Audience: "default", Policy: document, File: "default", Hosts: map[string][]string{"": {"api.test"}}, Directory: filepath.Join(t.TempDir(), "origin"),
	}); err != nil {
		t.Fatal(err)
	}
	_, secret, err := b.Keyring().Create(context.Background(), control.NewKey{Kind: "secret", Environment: "live"})
	if err != nil {
		t.Fatal(err)
	}
	return b, secret.Reveal()
}

func inline(t *testing.T, b *control.Bundle) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"inline": base64.StdEncoding.EncodeToString(raw), "signers": b.Signers}
}

func configuration(t *testing.T, source map[string]any, more map[string]any) []byte {
	t.Helper()
	c := map[string]any{"bundles": map[string]any{"shop": source}}
	for k, v := range more {
		c[k] = v
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// R58, R59: what cannot be right is refused, with words that say how to mend it.
func TestConfigurations(t *testing.T) {
	b, _ := shop(t)
	good := inline(t, b)
	with := func(name string, value any) map[string]any {
		c := map[string]any{}
		for k, v := range good {
			c[k] = v
		}
		if c[name] = value; value == nil {
			delete(c, name)
		}
		return c
	}
	origin := []map[string]any{{"cluster": "c", "authority": "a"}}
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"good":                     {configuration(t, good, nil), ""},
		"good, over HTTP":          {configuration(t, map[string]any{"origins": origin, "signers": b.Signers, "poll_interval": "1s"}, nil), ""},
		"nothing":                  {nil, "is empty"},
		"no object":                {[]byte(`"shop"`), "cannot unmarshal"},
		"cut":                      {configuration(t, good, nil)[:50], "unexpected"},
		"something behind":         {append(configuration(t, good, nil), "{}"...), "something follows"},
		"no bundle":                {[]byte(`{"bundles": {}}`), "names no bundle"},
		"a bracket behind":         {append(configuration(t, good, nil), '}'), "something follows"},
		"null bundle":              {[]byte(`{"bundles": {"shop": null}}`), "is empty"},
		"unknown":                  {configuration(t, good, map[string]any{"fail_open": true}), "unknown field"},
		"unknown in a bundle":      {configuration(t, with("file", "/x"), nil), "unknown field"},
		"twice in another case":    {[]byte(`{"bundles": {"shop": {"signers": [], "Signers": []}}}`), "given twice"},
		"twice":                    {[]byte(`{"bundles": {"shop": {"signers": [], "signers": []}}}`), "given twice"},
		"a bundle twice":           {[]byte(`{"bundles": {"shop": {}, "shop": {}}}`), "given twice"},
		"unknown in an origin":     {configuration(t, map[string]any{"origins": []map[string]any{{"cluster": "c", "host": "a"}}, "signers": b.Signers}, nil), "known here are cluster, authority, path, token"},
		"another name":             {[]byte(strings.Replace(string(configuration(t, good, nil)), `"shop"`, `"stop"`, 1)), "for the bundle"},
		"no signer":                {configuration(t, with("signers", nil), nil), "no signer"},
		"malformed signer":         {configuration(t, with("signers", []string{"x"}), nil), "malformed"},
		"threshold":                {configuration(t, with("threshold", 3), nil), "signatures are demanded"},
		"audience":                 {configuration(t, with("audience", "other"), nil), "for the audience"},
		"no source":                {configuration(t, with("inline", nil), nil), "one source"},
		"two sources":              {configuration(t, with("origins", origin), nil), "one source"},
		"no base64":                {configuration(t, with("inline", "?"), nil), "base64"},
		"no packed file":           {configuration(t, with("inline", "AAAA"), nil), "packed file"},
		"below the floor":          {configuration(t, with("min_version", 1<<52), nil), "older"},
		"age":                      {configuration(t, with("max_age", "soon"), nil), "write it like 15m"},
		"somebody ends TLS":        {configuration(t, with("tls_terminators", []string{"10.0.0.1"}), nil), "cannot be used in Envoy"},
		"other_hosts":              {configuration(t, good, map[string]any{"other_hosts": "open"}), "use refuse or pass"},
		"client_ip":                {configuration(t, good, map[string]any{"client_ip": "left"}), "use peer or forwarded"},
		"ready_path":               {configuration(t, good, map[string]any{"ready_path": "ready"}), "slash"},
		"origin without a cluster": {configuration(t, map[string]any{"origins": []map[string]any{{"authority": "a"}}, "signers": b.Signers}, nil), "cluster"},
		"origin's path":            {configuration(t, map[string]any{"origins": []map[string]any{{"cluster": "c", "authority": "a", "path": "x/"}}, "signers": b.Signers}, nil), "slash"},
		"hasty polls":              {configuration(t, map[string]any{"origins": origin, "signers": b.Signers, "poll_interval": "1ms"}, nil), "at least"},
	} {
		err := New(newFake(newShared())).Configure(tt.raw)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A Struct is the same as its JSON; what is neither is refused.
func TestStruct(t *testing.T) {
	b, _ := shop(t)
	for _, raw := range [][]byte{configuration(t, inline(t, b), map[string]any{"check_sni": true}), configuration(t, map[string]any{
		"origins": []any{map[string]any{"cluster": "c", "authority": "a"}}, "signers": b.Signers, "min_version": 1_700_000_000_000,
	}, nil)} {
		var s structpb.Struct
		if err := s.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		encoded, err := proto.Marshal(&s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseConfig(encoded)
		if err != nil {
			t.Fatal(err)
		}
		want, err := parseConfig(raw)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fmt.Sprintf("%+v", *got.Bundles["shop"]), fmt.Sprintf("%+v", *want.Bundles["shop"]); a != b || got.CheckSNI != want.CheckSNI {
			t.Errorf("%s\n%s", a, b)
		}
	}
}

// R1, R2: over plain HTTP no header is read, and all get one answer.
func TestPlainHTTPReadsNothing(t *testing.T) {
	b, key := shop(t)
	f := newFake(newShared())
	p := New(f)
	if err := p.Configure(configuration(t, inline(t, b), nil)); err != nil {
		t.Fatal(err)
	}
	delete(f.properties, "connection.tls_version")
	answers := make(map[string]bool)
	for _, lines := range [][]string{nil, {"authorization: Bearer " + key}, {"authorization: Bearer x", "x-forwarded-proto: https"}} {
		f.request("GET", "https://api.test/x", lines...)
		if p.Request(1, false) != Stop || f.status != 403 || f.linesRead != 0 {
			t.Errorf("%q: %d, %d header reads", lines, f.status, f.linesRead)
		}
		answers[f.body] = true
	}
	if len(answers) != 1 {
		t.Errorf("%d answers", len(answers))
	}
}

// R67, R68: whatever the proxy does wrong, a request is denied.
func TestFailsClosed(t *testing.T) {
	b, key := shop(t)
	f := newFake(newShared())
	p := New(f)
	if err := p.Configure(configuration(t, inline(t, b), nil)); err != nil {
		t.Fatal(err)
	}
	f.request("GET", "https://api.test/x", "authorization: Bearer "+key)
	if p.Request(1, false) != Continue || f.set["Keystile-Kind"] != "secret" || !slices.Contains(f.removed, "authorization") {
		t.Fatalf("a good key: %d %s", f.status, f.body)
	}
	for name, set := range map[string]func(){"headers fail": func() { f.fails = true }, "the host panics": func() { f.panics = "broken host" }} {
		f.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		set()
		if p.Request(1, false) != Stop || f.status != 503 {
			t.Errorf("%s: %d", name, f.status)
		}
		f.fails, f.panics = false, ""
	}
	if unconfigured := New(f); unconfigured.Request(1, false) != Stop || f.status != 503 {
		t.Errorf("before it is configured: %d", f.status)
	}
	for name, lines := range map[string][]string{
		"no lines": nil, "an empty name": {" x"}, "two paths": {":method GET", ":authority api.test", ":path /x", ":path /y", "authorization Bearer " + key},
	} {
		f.request("GET", "https://api.test/x")
		f.lines = nil
		for _, l := range lines {
			name, value, _ := strings.Cut(l, " ")
			f.lines = append(f.lines, core.Header{Name: name, Value: value})
		}
		if p.Request(1, false) != Stop || f.status < 400 {
			t.Errorf("%s: %d", name, f.status)
		}
	}
}

// What is passed where other hosts are: only what is certainly nobody's.
func TestOtherHosts(t *testing.T) {
	b, _ := shop(t)
	for _, loaded := range []bool{true, false} {
		f := newFake(newShared())
		p := New(f)
		source := inline(t, b)
		if !loaded {
			source = map[string]any{"origins": []map[string]any{{"cluster": "c", "authority": "a"}}, "signers": b.Signers}
		}
		if err := p.Configure(configuration(t, source, map[string]any{"other_hosts": "pass"})); err != nil {
			t.Fatal(err)
		}
		for host, want := range map[string]uint32{
			"other.test": 0, "other.test:8443": 0, "sub.api.test": 0, "api.test": 401, "API.Test.": 401, "api.test:443": 401,
			"api.test:8443": 421, "api.test:80": 421, "api.test..": 400, "x@api.test": 400, "api.test,other.test": 400, "": 400,
			"api.test:": 400, "[::1": 400,
		} {
			if !loaded {
				want = 503
			}
			for _, tls := range []bool{true, false} {
				f.request("GET", "https://"+host+"/x")
				expected := want
				if delete(f.properties, "connection.tls_version"); tls {
					f.properties["connection.tls_version"] = "TLSv1.3"
				} else if want != 0 {
					expected = 403
				}
				action := p.Request(1, false)
				if f.status != expected || (action == Continue) != (expected == 0) {
					t.Errorf("%q, TLS %v, loaded %v: %d, not %d", host, tls, loaded, f.status, expected)
				}
			}
		}
	}
}

// worker is one of several that share what they find.
type worker struct {
	*fake
	*Plugin
	now time.Time
}

func newWorker(t *testing.T, s *shared, b *control.Bundle) *worker {
	t.Helper()
	return newWorkerWith(t, s, b, nil)
}

// newWorkerWith is a worker with more in its bundle's configuration.
func newWorkerWith(t *testing.T, s *shared, b *control.Bundle, more map[string]any) *worker {
	t.Helper()
	w := &worker{fake: newFake(s), now: time.Now()}
	w.Plugin = New(w.fake)
	source := map[string]any{"origins": []map[string]any{{"cluster": "one", "authority": "a"}, {"cluster": "two", "authority": "a"}}, "signers": b.Signers}
	maps.Copy(source, more)
	if err := w.Configure(configuration(t, source, map[string]any{"ready_path": "/ready"})); err != nil {
		t.Fatal(err)
	}
	w.source().now = func() time.Time { return w.now }
	return w
}

func (w *worker) source() *source { return w.guards[0].source }

func (w *worker) tick(d time.Duration) {
	w.now = w.now.Add(d)
	w.Plugin.Tick()
}

// serve answers what was asked of the origins from a directory.
func (w *worker) serve(t *testing.T, dir string) {
	t.Helper()
	for len(w.calls) > 0 {
		c := w.calls[0]
		w.calls = w.calls[1:]
		raw, err := os.ReadFile(filepath.Join(dir, c.path))
		if err != nil {
			c.done("404", "", nil)
			continue
		}
		etag := bundle.HashOf(raw).String()
		if c.etag == etag {
			c.done("304", etag, nil)
			continue
		}
		c.done("200", etag, raw)
	}
}

// settle ticks and serves until the bundle is there.
func (w *worker) settle(t *testing.T, dir string) {
	t.Helper()
	for range 20 {
		w.tick(tickInterval)
		w.serve(t, dir)
	}
}

// One worker asks; the others take over what it has found, and verify it.
func TestWorkersShareNotes(t *testing.T) {
	b, key := shop(t)
	s := newShared()
	one, two := newWorker(t, s, b), newWorker(t, s, b)
	one.tick(tickInterval)
	two.tick(tickInterval)
	if len(one.calls) != 1 || len(two.calls) != 0 {
		t.Fatalf("%d and %d calls", len(one.calls), len(two.calls))
	}
	one.settle(t, b.Directory)
	two.settle(t, b.Directory)
	for _, w := range []*worker{one, two} {
		if w.guards[0].verifier.Bundle() == nil {
			t.Fatal("a worker has no bundle", w.fake.log)
		}
		w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		if w.Request(7, false) != Wait {
			t.Fatal("a node is not waited for")
		}
		w.settle(t, b.Directory)
		if !slices.Equal(w.resumed, []uint32{7}) {
			t.Errorf("resumed %v, %d %s", w.resumed, w.status, w.body)
		}
	}
	// Garbage and older notes in what is shared change nothing.
	current := one.guards[0].verifier.Bundle().Manifest.Version
	old := slices.Clone(s.data[one.source().notesKey])
	if err := b.Publisher().Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	one.tick(10 * time.Second)
	one.settle(t, b.Directory)
	two.settle(t, b.Directory)
	if got := two.guards[0].verifier.Bundle().Manifest.Version; got <= current {
		t.Fatalf("version %d after %d: %q", got, current, two.fake.log)
	}
	current = two.guards[0].verifier.Bundle().Manifest.Version
	for _, raw := range [][]byte{[]byte("garbage"), old, nil, make([]byte, 100)} {
		two.SetSharedData(two.source().notesKey, raw, 0)
		two.tick(tickInterval)
		if got := two.guards[0].verifier.Bundle().Manifest.Version; got != current {
			t.Errorf("%.10q: version %d", raw, got)
		}
	}
}

// Requests that wait: all are decided when the node comes; who has gone is left
// out; when no origin has it all are denied; a request over the bound is denied at
// once; an answer of another hash is none.
func TestWaiting(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	ask := func(id uint32) Action {
		w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		return w.Request(id, false)
	}
	for id := range uint32(5) {
		if ask(id) != Wait {
			t.Fatal("it does not wait")
		}
	}
	if len(w.source().fetches) != 1 || w.ticks != 1 {
		t.Errorf("%d fetches, tick of %d", len(w.source().fetches), w.ticks)
	}
	w.Done(1)
	for _, f := range w.source().fetches {
		if slices.Contains(f.waiting, 1) {
			t.Error("a request that has ended is waiting")
		}
	}
	w.ended = []uint32{2}
	w.tick(time.Millisecond)
	if w.ticks != uint32(tickInterval.Milliseconds()) {
		t.Errorf("ticks go on at %d ms", w.ticks)
	}
	// Both origins answer with something else.
	for range 2 {
		c := w.calls[len(w.calls)-1]
		w.calls = w.calls[:len(w.calls)-1]
		c.done("200", "", []byte("another node"))
	}
	if len(w.resumed) != 0 || w.status != 503 || len(w.source().fetches) != 0 {
		t.Errorf("resumed %v, status %d", w.resumed, w.status)
	}
	// The proxy cannot ask at all.
	w.dispatch = errFake
	if ask(10) != Wait {
		t.Error("it does not wait")
	}
	w.tick(time.Millisecond)
	if w.status != 503 {
		t.Errorf("no origin can be asked: %d", w.status)
	}
	w.dispatch = nil
	// An answer that never comes.
	if ask(11) != Wait {
		t.Error("it does not wait")
	}
	w.tick(time.Millisecond)
	w.calls = nil
	w.tick(2*fetchTimeout + time.Second)
	w.serve(t, b.Directory)
	if !slices.Contains(w.resumed, 11) {
		t.Errorf("the second origin was not asked: resumed %v", w.resumed)
	}
}

func TestBounds(t *testing.T) {
	b, _ := shop(t)
	s := newWorker(t, newShared(), b).source()
	for i := range maxFetches {
		if !s.want(bundle.Hash{byte(i), 1}, 1, nil) {
			t.Fatal("a fetch is refused")
		}
	}
	if s.want(bundle.Hash{255, 255}, 1, nil) {
		t.Error("one more is fetched")
	}
	for range maxWaiting - 1 {
		s.want(bundle.Hash{0, 1}, 2, nil)
	}
	if s.want(bundle.Hash{0, 1}, 3, nil) {
		t.Error("one more waits")
	}
	for i := range 3 * rawBytes / 4096 {
		s.keep(bundle.HashOf(fmt.Append(nil, i)), make([]byte, 4096))
	}
	if s.size > rawBytes || len(s.raw) != len(s.order) || len(s.raw) < rawBytes/4096-1 {
		t.Errorf("%d bytes in %d nodes", s.size, len(s.raw))
	}
}

// What two workers have noted is shared, the later use of each key, and no more
// keys than there may be.
func TestLastUsed(t *testing.T) {
	s := newShared()
	now := time.Unix(1_900_000_000, 0)
	worker := func() *lastUsed {
		u := newLastUsed(newFake(s), "shop")
		u.now, u.flushed = func() time.Time { return now }, now
		return u
	}
	one, two := worker(), worker()
	one.note("key_a")
	one.note("key_b")
	now = now.Add(10 * time.Second)
	two.note("key_b")
	one.tick()
	if len(s.data) != 0 {
		t.Error("it is shared before its time")
	}
	now = now.Add(usedInterval)
	two.tick()
	one.tick()
	if got, want := string(s.data["keystile.used.shop"]), "key_b 1900000010\nkey_a 1900000000\n"; got != want || len(one.seen) != 0 {
		t.Errorf("%q, not %q", got, want)
	}
	s.data["keystile.used.shop"] = append(s.data["keystile.used.shop"], "garbage\n\xff 1 2 3\n"...)
	now = now.Add(2 * usedInterval)
	for i := range maxUsed + 100 {
		one.note(fmt.Sprintf("key_%d", i))
	}
	if len(one.seen) > maxUsed {
		t.Errorf("%d keys are noted", len(one.seen))
	}
	one.tick()
	if lines := strings.Count(string(s.data["keystile.used.shop"]), "\n"); lines != maxUsed {
		t.Errorf("%d keys", lines)
	}
	if strings.Contains(string(s.data["keystile.used.shop"]), "key_a ") {
		t.Error("one that was used long ago took the place of another")
	}
}

// trailer is one of which only the last line may go on.
func trailer(key string) []core.Header {
	return []core.Header{
		{Name: "keystile-key-id", Value: "forged"}, {Name: "x~http~method", Value: "DELETE"}, {Name: "authorization", Value: "Bearer " + key},
		{Name: "x-note", Value: "it is " + key}, {Name: "x-note", Value: "kept"}, {Name: "x-sum", Value: "kept"},
	}
}

// R30: of a trailer nothing goes on that means something to the edge, nor the API key,
// while other lines do, those of the key's name too.
func TestTrailers(t *testing.T) {
	b, key := shop(t)
	f := newFake(newShared())
	p := New(f)
	if err := p.Configure(configuration(t, inline(t, b), map[string]any{"other_hosts": "pass"})); err != nil {
		t.Fatal(err)
	}
	f.request("POST", "https://api.test/x", "authorization: Bearer "+key)
	if p.Request(1, true) != Continue {
		t.Fatalf("a good key: %d %s", f.status, f.body)
	}
	f.removed, f.added, f.trailers = nil, nil, trailer(key)
	if action := p.Trailers(1); action != Continue {
		t.Errorf("action %d", action)
	}
	checkTrailer(t, f)
	p.Done(1)
	if p.Trailers(1) != Stop || f.status != 503 {
		t.Errorf("a trailer of nobody's request: %d", f.status)
	}
	f.request("POST", "https://other.test/x")
	f.trailers = trailer(key)
	if p.Request(2, true) != Continue || p.Trailers(2) != Continue || len(f.removed) != 0 {
		t.Errorf("a trailer for another host: %d, removed %q", f.status, f.removed)
	}
}

func checkTrailer(t *testing.T, f *fake) {
	t.Helper()
	removed := []string{"trailer keystile-key-id", "trailer x~http~method", "trailer authorization", "trailer x-note"}
	if !slices.Equal(f.removed, removed) || !slices.Equal(f.added, []string{"trailer x-note: kept"}) {
		t.Errorf("removed %q, added %q", f.removed, f.added)
	}
}

// R30: the same of a request that waited, whether its trailer came before the node or
// behind it.
func TestTrailersOfWaiting(t *testing.T) {
	for _, before := range []bool{true, false} {
		b, key := shop(t)
		w := newWorker(t, newShared(), b)
		w.settle(t, b.Directory)
		w.fake.request("POST", "https://api.test/x", "authorization: Bearer "+key)
		w.fake.trailers = trailer(key)
		if w.Request(7, true) != Wait {
			t.Fatal("it does not wait")
		}
		if before && w.Trailers(7) != Wait {
			t.Error("the trailer does not wait")
		}
		w.settle(t, b.Directory)
		if !slices.Equal(w.resumed, []uint32{7}) {
			t.Fatalf("resumed %v, %d %s", w.resumed, w.status, w.body)
		}
		if !before && w.Trailers(7) != Continue {
			t.Errorf("the trailer does not go on: %d", w.status)
		}
		w.fake.removed = slices.DeleteFunc(w.fake.removed, func(name string) bool { return !strings.HasPrefix(name, "trailer ") })
		checkTrailer(t, w.fake)
	}
}

// R32: of several lines of one name only those go that hold the API key.
func TestKeyElsewhere(t *testing.T) {
	b, key := shop(t)
	f := newFake(newShared())
	p := New(f)
	if err := p.Configure(configuration(t, inline(t, b), nil)); err != nil {
		t.Fatal(err)
	}
	f.request("GET", "https://api.test/x", "authorization: Bearer "+key, "x-note: first", "x-note: "+key, "x-note: last", "x-other: kept")
	if p.Request(1, false) != Continue {
		t.Fatalf("a good key: %d %s", f.status, f.body)
	}
	if !slices.Equal(f.removed, []string{"authorization", "x-note"}) || !slices.Equal(f.added, []string{"x-note: first", "x-note: last"}) {
		t.Errorf("removed %q, added %q", f.removed, f.added)
	}
}

// R5: a WebSocket opens by HTTP/1.1 alone; Envoy shows extended CONNECT of later
// versions in the same form.
func TestWebSocket(t *testing.T) {
	b, key := shop(t)
	f := newFake(newShared())
	p := New(f)
	if err := p.Configure(configuration(t, inline(t, b), nil)); err != nil {
		t.Fatal(err)
	}
	for protocol, want := range map[string]Action{"HTTP/1.1": Continue, "HTTP/1.0": Stop, "HTTP/2": Stop, "HTTP/3": Stop, "": Stop} {
		f.request("GET", "https://api.test/x", "authorization: Bearer "+key, "connection: upgrade, keystile-kind", "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13")
		f.properties["request.protocol"] = protocol
		if action := p.Request(1, false); action != want || want == Stop && f.status != 400 {
			t.Errorf("%q: action %d, status %d", protocol, action, f.status)
		}
		if want == Continue && (!slices.Equal(f.removed, []string{"authorization", "connection"}) || !slices.Equal(f.added, []string{"connection: upgrade"})) {
			t.Errorf("removed %q, added %q", f.removed, f.added)
		}
	}
	for line, want := range map[string]Action{"content-length: 0": Continue, "content-length: 4": Stop, "transfer-encoding: chunked": Stop} {
		f.request("GET", "https://api.test/x", "authorization: Bearer "+key, "upgrade: websocket", "sec-websocket-key: x", "sec-websocket-version: 13", line)
		f.properties["request.protocol"] = "HTTP/1.1"
		if action := p.Request(1, false); action != want {
			t.Errorf("%s: action %d, status %d", line, action, f.status)
		}
	}
}
