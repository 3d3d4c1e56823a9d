package plugin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protowire"
)

// R39: an address that Envoy took from X-Forwarded-For, which has no port, is no
// peer's: a key for some addresses is not allowed by it, unless that is configured.
func TestAddressOfAKey(t *testing.T) {
	b, _ := shop(t)
	_, secret, err := b.Keyring().Create(context.Background(), control.NewKey{Kind: "secret", Environment: "live", IPs: []string{"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		clientIP, address string
		allowed           bool
	}{
		{"", "192.0.2.1:4711", true}, {"", "192.0.2.1:0", false}, {"", "192.0.2.2:4711", false}, {"", "192.0.2.1", false}, {"", "", false},
		{"peer", "192.0.2.1:4711", true}, {"peer", "192.0.2.1:0", false},
		{"forwarded", "192.0.2.1:0", true}, {"forwarded", "192.0.2.2:0", false}, {"forwarded", "192.0.2.1", false},
	} {
		f := newFake(newShared())
		p := New(f)
		if err := p.Configure(configuration(t, inline(t, b), map[string]any{"client_ip": tt.clientIP})); err != nil {
			t.Fatal(err)
		}
		f.properties["source.address"] = tt.address
		f.request("GET", "https://api.test/x", "authorization: Bearer "+secret.Reveal(), "x-forwarded-for: 192.0.2.1")
		if allowed := p.Request(1, false) == Continue; allowed != tt.allowed || !allowed && (f.status != 403 || !strings.Contains(f.state, "reason=ip ")) {
			t.Errorf("client_ip %q, address %q: %d %s", tt.clientIP, tt.address, f.status, f.state)
		}
	}
}

// notes are those that a bundle's directory has.
func notes(t *testing.T, b *control.Bundle) (n bundle.Notes) {
	t.Helper()
	for name, to := range map[string]*[]byte{"policy": &n.PolicyNote, "manifest": &n.Manifest} {
		raw, err := os.ReadFile(filepath.Join(b.Directory, "v1", name))
		if err != nil {
			t.Fatal(err)
		}
		*to = raw
	}
	return n
}

// R56: notes that another worker or an origin gives are taken over only if they may
// follow those found before, and none is shared over a later one.
func TestNotesDoNotGoBack(t *testing.T) {
	b, _ := shop(t)
	s := newShared()
	one, two := newWorker(t, s, b), newWorker(t, s, b)
	old := notes(t, b)
	if err := one.source().raise(old); err != nil {
		t.Fatal(err)
	}
	if err := one.source().raise(old); !errors.Is(err, errSame) {
		t.Errorf("the same notes: %v", err)
	}
	if err := b.Publisher().Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	later := notes(t, b)
	if err := two.source().raise(later); err != nil {
		t.Fatal(err)
	}
	if err := two.source().raise(old); !errors.Is(err, bundle.ErrRollback) || string(two.source().found.Notes.Manifest) != string(later.Manifest) {
		t.Errorf("older notes: %v", err)
	}
	two.source().share()
	one.source().share()
	if got := s.data[one.source().notesKey]; string(got) != string(bundle.AppendState(nil, later)) {
		t.Errorf("older notes were shared over later ones")
	}
	one.tick(tickInterval)
	if one.source().found.Notes.Manifest == nil || string(one.source().found.Notes.Manifest) != string(later.Manifest) {
		t.Error("the later notes were not taken over")
	}
}

// R56: notes of the future are refused, by the clock's difference that is configured.
func TestNotesOfTheFuture(t *testing.T) {
	b, _ := shop(t)
	for _, tt := range []struct {
		skew   string
		behind time.Duration
		taken  bool
	}{
		{"", 50 * time.Second, true}, {"", 70 * time.Second, false}, {"10m", 9 * time.Minute, true}, {"10m", 11 * time.Minute, false},
		{"1s", 30 * time.Second, false},
	} {
		source := map[string]any{"origins": []map[string]any{{"cluster": "one", "authority": "a"}}, "signers": b.Signers}
		if tt.skew != "" {
			source["clock_skew"] = tt.skew
		}
		p := New(newFake(newShared()))
		if err := p.Configure(configuration(t, source, nil)); err != nil {
			t.Fatal(err)
		}
		s := p.guards[0].source
		now := time.Now().Add(-tt.behind)
		s.now = func() time.Time { return now }
		err := s.raise(notes(t, b))
		if (err == nil) != tt.taken || err != nil && !errors.Is(err, bundle.ErrFuture) || (s.found != nil) != tt.taken {
			t.Errorf("clock_skew %q, clock behind by %s: %v", tt.skew, tt.behind, err)
		}
	}
}

// The ready path says 200 only while every bundle is in force, by HTTP and HTTPS.
func TestReady(t *testing.T) {
	b, _ := shop(t)
	f := newFake(newShared())
	w := &worker{fake: f, Plugin: New(f), now: time.Now()}
	source := map[string]any{"origins": []map[string]any{{"cluster": "one", "authority": "a"}}, "signers": b.Signers}
	if err := w.Configure(configuration(t, source, map[string]any{"ready_path": "/ready"})); err != nil {
		t.Fatal(err)
	}
	w.source().now = func() time.Time { return w.now }
	for _, want := range []uint32{503, 200} {
		for _, tls := range []string{"TLSv1.3", ""} {
			w.fake.request("GET", "https://elsewhere.test/ready")
			w.properties["connection.tls_version"] = tls
			if action := w.Request(1, false); action != Stop || w.status != want {
				t.Errorf("TLS %q: %d, not %d", tls, w.status, want)
			}
		}
		w.settle(t, b.Directory)
	}
}

// A request that ended while it waited is not decided.
func TestGone(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	for id := range uint32(3) {
		w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		if w.Request(id, false) != Wait {
			t.Fatal("it does not wait")
		}
	}
	w.Done(1)
	w.settle(t, b.Directory)
	if !slices.Equal(w.resumed, []uint32{0, 2}) {
		t.Errorf("resumed %v", w.resumed)
	}
}

// asked is the entity tag that the manifest is next asked for with.
func (w *worker) asked(t *testing.T) string {
	t.Helper()
	w.tick(2 * time.Minute)
	i := slices.IndexFunc(w.calls, func(c call) bool { return c.path == "/v1/manifest" })
	if i < 0 {
		t.Fatal("the manifest is not asked for")
	}
	return w.calls[i].etag
}

// After an origin has failed the manifest is asked for anew: what another one has said
// not to have changed since may be something else.
func TestEntityTagAfterAFailure(t *testing.T) {
	b, _ := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	if w.asked(t) == "" {
		t.Error("an entity tag is not sent")
	}
	w.serve(t, t.TempDir()) // which has nothing
	if tag := w.asked(t); tag != "" {
		t.Errorf("after a failure the entity tag %s is sent", tag)
	}
}

// A bundle that was refused is tried again after a while, not on every tick, and its
// refusal is told once.
func TestRefusedBundle(t *testing.T) {
	b, _ := shop(t)
	w := newWorker(t, newShared(), b)
	s := w.source()
	if err := s.raise(notes(t, b)); err != nil {
		t.Fatal(err)
	}
	w.nextPoll(time.Hour)
	compiled, err := os.ReadFile(filepath.Join(b.Directory, "v1", "node", s.found.PolicyNote.PolicyHash.String()[:2], s.found.PolicyNote.PolicyHash.String()[2:]))
	if err != nil {
		t.Fatal(err)
	}
	s.compiled[s.found.PolicyNote.PolicyHash] = []byte("no policy")
	for range 5 {
		w.tick(time.Millisecond)
	}
	s.compiled[s.found.PolicyNote.PolicyHash] = compiled
	if w.tick(time.Millisecond); w.guards[0].verifier.Bundle() != nil {
		t.Error("a bundle that was refused is tried again at once")
	}
	if w.tick(retryInterval); w.guards[0].verifier.Bundle() == nil {
		t.Error("a bundle that was refused is not tried again")
	}
	refused := 0
	for _, line := range w.fake.log {
		refused += strings.Count(line, "a bundle was refused")
	}
	if refused != 1 {
		t.Errorf("it is told %d times", refused)
	}
}

// nextPoll puts off the next asking for notes.
func (w *worker) nextPoll(d time.Duration) { w.source().polled, w.source().pause = w.now, d }

// However many keys are used between two ticks, so many are kept; those that are kept
// are noted on.
func TestLastUsedIsBounded(t *testing.T) {
	u := newLastUsed(newFake(newShared()), "shop")
	now := time.Unix(1_900_000_000, 0)
	u.now = func() time.Time { return now }
	for i := range maxUsed + 100 {
		u.note(fmt.Sprintf("key_%d", i))
	}
	now = now.Add(time.Second)
	u.note("key_0")
	if len(u.seen) != maxUsed || u.seen["key_0"] != now.Unix() {
		t.Errorf("%d keys are kept, and the first was used at %d", len(u.seen), u.seen["key_0"])
	}
}

// That no bundle is there is an error when it lasts, not at every start.
func TestFirstBundle(t *testing.T) {
	b, _ := shop(t)
	w := newWorker(t, newShared(), b)
	denied := func() bool {
		return slices.ContainsFunc(w.fake.log, func(line string) bool { return strings.Contains(line, "every request is denied") })
	}
	w.tick(tickInterval)
	if w.tick(startGrace - time.Millisecond); denied() {
		t.Error("an error is told at once")
	}
	if w.tick(time.Millisecond); !denied() {
		t.Error("an error that lasts is not told")
	}
	if w.settle(t, b.Directory); !slices.ContainsFunc(w.fake.log, func(line string) bool { return strings.Contains(line, "requests are decided") }) {
		t.Errorf("its end is not told: %q", w.fake.log)
	}
}

// failing is a proxy that does not do what it is asked to.
type failing struct {
	*fake
	remove, add, set error
}

func (f *failing) RemoveRequestHeader(name string) error {
	if f.remove != nil {
		return f.remove
	}
	return f.fake.RemoveRequestHeader(name)
}
func (f *failing) AddRequestHeader(name, value string) error {
	if f.add != nil {
		return f.add
	}
	return f.fake.AddRequestHeader(name, value)
}
func (f *failing) SetRequestHeader(name, value string) error {
	if f.set != nil {
		return f.set
	}
	return f.fake.SetRequestHeader(name, value)
}

// A request whose key cannot be taken away, or whose identity cannot be set, goes
// nowhere.
func TestProxyThatDoesNotObey(t *testing.T) {
	b, key := shop(t)
	for name, f := range map[string]*failing{
		"remove": {remove: errFake}, "add": {add: errFake}, "set": {set: errFake},
	} {
		f.fake = newFake(newShared())
		p := New(f)
		if err := p.Configure(configuration(t, inline(t, b), nil)); err != nil {
			t.Fatal(err)
		}
		f.request("GET", "https://api.test/x", "authorization: Bearer "+key, "x-note: "+key, "x-note: stays")
		if got := p.Request(1, false); got != Stop || f.status != 503 {
			t.Errorf("%s: action %d, status %d", name, got, f.status)
		}
	}
}

// A request that ended while it waited is not decided, nor resumed.
func TestEndedWhileItWaited(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	for id := range uint32(3) {
		w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		if w.Request(id, false) != Wait {
			t.Fatal("it does not wait")
		}
	}
	w.ended = []uint32{1}
	w.tick(time.Millisecond)
	w.serve(t, b.Directory)
	if !slices.Equal(w.resumed, []uint32{0, 2}) {
		t.Errorf("resumed %v", w.resumed)
	}
}

// An origin that answers once another has is not heard: nobody is decided twice.
func TestLateAnswer(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
	if w.Request(1, false) != Wait {
		t.Fatal("it does not wait")
	}
	w.tick(time.Millisecond)
	first := w.calls[len(w.calls)-1]
	w.tick(2*fetchTimeout + time.Second)
	var second call
	for _, c := range w.calls {
		if c.path == first.path {
			second = c
		}
	}
	raw, err := os.ReadFile(filepath.Join(b.Directory, first.path))
	if err != nil {
		t.Fatal(err)
	}
	first.done("200", "", raw)
	second.done("200", "", raw)
	if !slices.Equal(w.resumed, []uint32{1}) {
		t.Errorf("resumed %v", w.resumed)
	}
}

// An earlier use that another worker shared does not take the place of a later one.
func TestLaterUse(t *testing.T) {
	s := newShared()
	now := time.Unix(1_900_000_000, 0)
	u := newLastUsed(newFake(s), "shop")
	u.now, u.flushed = func() time.Time { return now }, now
	s.data["keystile.used.shop"], s.cas["keystile.used.shop"] = []byte("key_a 1899999990\n"), 1
	u.note("key_a")
	now = now.Add(2 * usedInterval)
	u.tick()
	if got := string(s.data["keystile.used.shop"]); got != "key_a 1900000000\n" {
		t.Errorf("%q", got)
	}
}

// R74: a private key is told wherever it stands in a configuration, and not repeated; one
// without its head is no verifier key.
func TestNoPrivateKeyIsRepeated(t *testing.T) {
	private, _, err := note.GenerateKey(rand.Reader, "policy")
	if err != nil {
		t.Fatal(err)
	}
	secret := private[len(private)-30:]
	config := func(signer, rest string) []byte {
		return []byte(`{"bundles": {"shop": {"origins": [{"cluster": "c", "authority": "a"}], "signers": ["` + signer + `"]}}` + rest + `}`)
	}
	for name, raw := range map[string][]byte{
		"signer":       config(private, ""),
		"other option": config("x", `, "other_hosts": "`+private+`"`),
		"no option":    config("x", `, "`+private+`": 1`),
		"no JSON":      []byte(private),
	} {
		if _, err := parseConfig(raw); !errors.Is(err, bundle.ErrPrivateKey) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := parseConfig(config(strings.TrimPrefix(private, "PRIVATE+KEY+"), ""))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Bundles["shop"].trust("shop"); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("without its head: %v", err)
	}
}

// R58: a configuration that is too long is refused before it is read, as is one that is
// nested too deep, or has a name twice, in a Struct.
func TestConfigurationsAreBounded(t *testing.T) {
	good := []byte(`{"bundles": {"shop": {"origins": [{"cluster": "c", "authority": "a"}], "signers": ["x"]}}}`)
	for _, tt := range []struct {
		length int
		want   string
	}{{maxConfig, ""}, {maxConfig + 1, "at most"}} {
		raw := append(slices.Clone(good), strings.Repeat(" ", tt.length-len(good))...)
		if _, err := parseConfig(raw); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%d bytes: %v", tt.length, err)
		}
	}
	field := func(number protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), b)
	}
	entry := func(name string, value []byte) []byte {
		return field(1, append(field(1, []byte(name)), field(2, value)...))
	}
	text := field(3, []byte("x"))
	for name, tt := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"two names":      {append(entry("a", text), entry("b", text)...), true},
		"a name twice":   {append(entry("a", text), entry("a", text)...), false},
		"two values":     {field(1, slices.Concat(field(1, []byte("a")), field(2, text), field(2, text))), false},
		"no value":       {field(1, field(1, []byte("a"))), false},
		"another field":  {append(entry("a", text), field(2, text)...), false},
		"lists":          {entry("a", nest(text, 14, func(v []byte) []byte { return field(6, field(1, v)) })), true},
		"too many lists": {entry("a", nest(text, 20, func(v []byte) []byte { return field(6, field(1, v)) })), false},
		"objects":        {entry("a", nest(text, 14, func(v []byte) []byte { return field(5, entry("a", v)) })), true},
		"too many":       {entry("a", nest(text, 20, func(v []byte) []byte { return field(5, entry("a", v)) })), false},
	} {
		if _, ok := structure(tt.raw); ok != tt.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

func nest(v []byte, times int, in func([]byte) []byte) []byte {
	for range times {
		v = in(v)
	}
	return v
}

// R6: with check_sni the name that the client asked for in the handshake is that of the
// host; without it, and where it asked for none, nothing is compared.
func TestServerName(t *testing.T) {
	b, key := shop(t)
	for _, tt := range []struct {
		check  bool
		name   string
		status uint32 // 0 for none
	}{
		{true, "api.test", 0}, {true, "API.test", 0}, {true, "", 0}, {true, "other.test", 421}, {true, "a b", 421}, {false, "other.test", 0},
	} {
		f := newFake(newShared())
		p := New(f)
		if err := p.Configure(configuration(t, inline(t, b), map[string]any{"check_sni": tt.check})); err != nil {
			t.Fatal(err)
		}
		f.properties["connection.requested_server_name"] = tt.name
		f.request("GET", "https://api.test/x", "authorization: Bearer "+key)
		if action := p.Request(1, false); (action == Continue) != (tt.status == 0) || tt.status != 0 && uint32(f.status) != tt.status {
			t.Errorf("check_sni %v, %q: %d", tt.check, tt.name, f.status)
		}
	}
}

// R58: nor does a Struct hold a text that is not UTF-8, which Envoy would not send.
func TestStructIsUTF8(t *testing.T) {
	text := func(s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), s)
	}
	entry := func(name string, value []byte) []byte {
		e := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		e = protowire.AppendBytes(protowire.AppendTag(e, 2, protowire.BytesType), value)
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), e)
	}
	for _, tt := range []struct {
		name, value string
		ok          bool
	}{{"a", "é", true}, {"a\xff", "b", false}, {"a", "\xffb", false}} {
		if _, err := readStruct(entry(tt.name, text(tt.value)), 0); (err == nil) != tt.ok {
			t.Errorf("%q: %q: %v", tt.name, tt.value, err)
		}
	}
}

// R58: a configuration is UTF-8: encoding/json would take another byte for U+FFFD.
func TestConfigurationIsUTF8(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"bundles": {"shop": {"origins": [{"cluster": "c", "authority": "é"}], "signers": ["x"]}}}`:                       true,
		"{\"bundles\": {\"shop\": {\"origins\": [{\"cluster\": \"c\", \"authority\": \"a\xff\"}], \"signers\": [\"x\"]}}}": false,
		"{\"bundles\": {\"sh\xffop\": {\"origins\": [{\"cluster\": \"c\", \"authority\": \"a\"}], \"signers\": [\"x\"]}}}": false,
	} {
		if _, err := parseConfig([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
