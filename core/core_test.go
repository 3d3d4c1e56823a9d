package core_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/policies"
)

var noOptions compile.Options

// publisher signs bundles for an edge that trusts it.
type publisher struct {
	*bundletest.Publisher
	t     testing.TB
	trust *bundle.Trust
	nodes bundle.NodeSource // replaces the real ones
}

func newPublisher(t testing.TB, p *policy.Policy, now time.Time) *publisher {
	t.Helper()
	signs, err := bundletest.NewPublisher(p, p.Name, "edge", now.UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	trust, err := signs.Trust()
	if err != nil {
		t.Fatal(err)
	}
	return &publisher{Publisher: signs, t: t, trust: trust}
}

func (p *publisher) bundle(at time.Time, records ...bundle.Record) *bundle.Bundle {
	p.t.Helper()
	signed, err := p.Sign(at.UnixMilli(), slices.Clone(records))
	if err != nil {
		p.t.Fatal(err)
	}
	var nodes bundle.NodeSource = signed.Nodes
	if p.nodes != nil {
		nodes = p.nodes
	}
	b, err := bundle.Open(signed.Notes, signed.Compiled, nodes, p.trust)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func compiled(t testing.TB, name string) *policy.Policy {
	t.Helper()
	p, err := policies.Compile(name, noOptions)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newKey makes a key of the default policy with its record.
func newKey(t testing.TB, id string) (string, bundle.Record) {
	t.Helper()
	s, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	return s.Reveal(), bundle.Record{Digest: s.Digest(), KeyID: id, Kind: "secret", Environment: "live", Status: bundle.Active}
}

// clock is one that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) set(t time.Time) {
	c.mu.Lock()
	c.at = t
	c.mu.Unlock()
}

func newVerifier(t testing.TB, config core.Config) *core.Verifier {
	t.Helper()
	v, err := core.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func request(key string) *core.Request {
	return &core.Request{
		TLS: true, Method: "GET", Authority: "api.test", Path: "/x", ClientIP: func() netip.Addr { return netip.MustParseAddr("192.0.2.1") },
		Headers: header(map[string][]string{"Authorization": {"Bearer " + key}}),
	}
}

func wantReason(t *testing.T, what string, d core.Decision, reason policy.Reason) {
	t.Helper()
	if d.Reason != reason || (d.Outcome == core.Allow) != (reason == policy.OK) {
		t.Errorf("%s: reason %s, outcome %d, error %v; want %s", what, d.Reason, d.Outcome, d.Err, reason)
	}
}

// spy counts how often a request's headers are asked for.
type spy struct{ asked int }

func (s *spy) Lines() []core.Header {
	s.asked++
	return nil
}

// R2: over plain HTTP no header is read, whatever the bundle's state.
func TestPlaintextReadsNothing(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	for _, state := range []string{"no bundle", "bundle"} {
		if state == "bundle" {
			if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now)); err != nil {
				t.Fatal(err)
			}
		}
		s := &spy{}
		d := v.Verify(&core.Request{Method: "GET", Authority: "api.test", Path: "/", Headers: s})
		wantReason(t, state, d, policy.Plaintext)
		if s.asked > 0 {
			t.Errorf("%s: headers were read", state)
		}
		if !d.Close || d.Status != 403 || !strings.Contains(string(d.Body), "HTTPS is required") {
			t.Errorf("%s: %+v", state, d)
		}
	}
}

// R4: early data is refused, whatever else the request holds, by the connection or by
// what a proxy in front says of its own (RFC 8470).
func TestEarlyData(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{TLSTerminators: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	key, rec := newKey(t, "key_1")
	for _, state := range []string{"no bundle", "bundle"} {
		if state == "bundle" {
			if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
				t.Fatal(err)
			}
		}
		early := request(key)
		early.EarlyData = true
		said := request(key)
		said.Headers = core.Lines(append(said.Headers.Lines(), core.Header{Name: "early-data", Value: "1"}))
		behind := request(key)
		behind.TLS, behind.Peer = false, netip.MustParseAddr("10.0.0.1")
		behind.Headers = core.Lines(append(behind.Headers.Lines(), core.Header{Name: "X-Forwarded-Proto", Value: "https"}, core.Header{Name: "Early-Data", Value: ""}))
		for name, r := range map[string]*core.Request{"connection": early, "line": said, "line of a terminator": behind} {
			d := v.Verify(r)
			wantReason(t, state+", "+name, d, policy.EarlyData)
			if d.Status != 425 || d.Key != nil {
				t.Errorf("%s, %s: %v", state, name, d)
			}
		}
	}
}

// R59, R67: without a bundle in force everything is denied with 503.
func TestBundleState(t *testing.T) {
	now := time.Now()
	c := &clock{at: now}
	v := newVerifier(t, core.Config{Now: c.now, MaxAge: time.Hour})
	key, rec := newKey(t, "key_1")
	d := v.Verify(request(key))
	wantReason(t, "no bundle", d, policy.NoBundle)
	if d.Status != 503 || !slices.Contains(d.Header, core.Header{Name: "Retry-After", Value: "5"}) {
		t.Errorf("no bundle: %d %v", d.Status, d.Header)
	}
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		after time.Duration
		want  policy.Reason
	}{
		{"in force", 0, policy.OK},
		{"at max_age", time.Hour, policy.OK},
		{"over max_age", time.Hour + time.Second, policy.StaleBundle},
		{"expired", bundle.DefaultLife, policy.BundleExpired},
		{"back in force", time.Minute, policy.OK},
		{"clock behind", -2 * time.Minute, policy.StaleBundle},
	} {
		c.set(now.Add(tt.after))
		wantReason(t, tt.name, v.Verify(request(key)), tt.want)
	}
}

// R56: an older bundle, another text of the same version and one of the future
// are refused, and the one in use goes on.
func TestActivate(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	p := newPublisher(t, compiled(t, "default"), now)
	key, rec := newKey(t, "key_1")
	if err := v.Activate(p.bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		b    *bundle.Bundle
		want error
	}{
		"older":  {p.bundle(now.Add(-time.Second)), bundle.ErrRollback},
		"forked": {p.bundle(now), bundle.ErrForked},
		"future": {p.bundle(now.Add(2 * time.Minute)), bundle.ErrFuture},
	} {
		if err := v.Activate(tt.b); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		wantReason(t, name, v.Verify(request(key)), policy.OK)
	}
}

// R50, R82: a record that is cached follows every change of the tree and of the
// policy at once.
func TestCachedRecordsFollow(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	p := newPublisher(t, compiled(t, "default"), now)
	key, rec := newKey(t, "key_1")
	records := []bundle.Record{rec}
	for i := range 500 {
		_, other := newKey(t, fmt.Sprintf("other_%d", i))
		records = append(records, other)
	}
	at := now
	activate := func() {
		t.Helper()
		at = at.Add(time.Millisecond)
		if err := v.Activate(p.bundle(at, records...)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want policy.Reason) {
		t.Helper()
		for range 3 {
			wantReason(t, what, v.Verify(request(key)), want)
			v.Wait()
		}
	}
	activate()
	check("active", policy.OK)
	activate()
	check("after a renewal", policy.OK)
	records[400].Status = bundle.Revoked
	activate()
	check("after another key's change", policy.OK)
	records[0].Status = bundle.Revoked
	activate()
	check("revoked", policy.Revoked)
	records[0].Status = bundle.Deprecated
	activate()
	check("another record again", policy.OK)
	if d := v.Verify(request(key)); !slices.Contains(d.Set, core.Header{Name: "Keystile-Deprecated", Value: "true"}) {
		t.Errorf("a deprecated key is not marked: %v", d.Set)
	}
	records = records[1:]
	activate()
	check("gone", policy.Unknown)
	records = append(records, rec)
	activate()
	check("back", policy.OK)
	// A new policy makes the same record mean something else.
	changed, err := compile.Compile("default.yaml", bytes.Replace(must(policies.Policy("default")), []byte("secret: {prefix: sk}"), []byte("extra: {prefix: xk}\n  secret: {prefix: sk, scoped: true}"), 1), noOptions)
	if err != nil {
		t.Fatal(err)
	}
	q := newPublisher(t, changed, at.Add(time.Second))
	p.Publisher, p.trust = q.Publisher, q.trust
	at = at.Add(time.Second)
	activate()
	check("scoped by a new policy", policy.Scope)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Times are compared at every use, not when a record is cached (R53).
func TestTimesOfACachedKey(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	c := &clock{at: now}
	v := newVerifier(t, core.Config{Now: c.now})
	key, rec := newKey(t, "key_1")
	rec.NotBefore, rec.Expires = now.Unix()+10, now.Unix()+20
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		second int
		want   policy.Reason
	}{{0, policy.NotYetValid}, {9, policy.NotYetValid}, {10, policy.OK}, {19, policy.OK}, {20, policy.Expired}, {15, policy.OK}} {
		c.set(now.Add(time.Duration(tt.second) * time.Second))
		wantReason(t, fmt.Sprintf("second %d", tt.second), v.Verify(request(key)), tt.want)
		v.Wait()
	}
}

// broken is a node source that fails.
type broken struct{ err error }

func (b broken) Node(bundle.Hash) ([]byte, error) {
	if b.err == nil {
		return []byte("garbage"), nil
	}
	return nil, b.err
}

// panics is a host's header source that panics.
type panics struct{}

func (panics) Lines() []core.Header { panic("broken host") }

// R67, R68: nodes that cannot be had, garbage and panics deny.
func TestFailsClosed(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	for _, tt := range []struct {
		name  string
		nodes bundle.NodeSource
		want  policy.Reason
	}{
		{"node missing", broken{errors.New("gone")}, policy.NodeMissing},
		{"node garbage", broken{}, policy.Internal},
	} {
		p := newPublisher(t, compiled(t, "default"), now)
		p.nodes = tt.nodes
		v := newVerifier(t, core.Config{})
		if err := v.Activate(p.bundle(now, rec)); err != nil {
			t.Fatal(err)
		}
		d := v.Verify(request(key))
		wantReason(t, tt.name, d, tt.want)
		var node *bundle.NodeError
		if !errors.As(d.Err, &node) || d.Status != 503 {
			t.Errorf("%s: %v", tt.name, d.Err)
		}
	}
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	r := request(key)
	r.Headers = panics{}
	func() {
		defer func() {
			if recover() != nil {
				t.Error("a panic came through")
			}
		}()
		wantReason(t, "panic", v.Verify(r), policy.Internal)
	}()
	wantReason(t, "after the panic", v.Verify(request(key)), policy.OK)
}

// R47: the signed record decides; a prefix that says otherwise denies.
func TestPrefixAgainstRecord(t *testing.T) {
	now := time.Now()
	for name, change := range map[string]func(*bundle.Record){
		"kind":        func(r *bundle.Record) { r.Kind = "restricted" },
		"environment": func(r *bundle.Record) { r.Environment = "test" },
	} {
		key, rec := newKey(t, "key_1")
		change(&rec)
		v := newVerifier(t, core.Config{})
		if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name, v.Verify(request(key)), policy.Internal)
	}
}

// R33: a key of another length is refused, even if its checksum is right and its
// record is there.
func TestKeyOfAnotherLength(t *testing.T) {
	now := time.Now()
	for name, n := range map[string]int{"shorter": 31, "longer": 33, "far longer": 5000} {
		key := "sk_live_" + strings.Repeat("a", n)
		sum, digits := crc32.ChecksumIEEE([]byte(key)), make([]byte, 6)
		for i := range digits {
			digits[5-i] = credential.Alphabet[sum%62]
			sum /= 62
		}
		key += string(digits)
		_, rec := newKey(t, "key_1")
		rec.Digest = credential.DigestOf(key)
		v := newVerifier(t, core.Config{})
		if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
			t.Fatal(err)
		}
		wantReason(t, name, v.Verify(request(key)), policy.BadFormat)
	}
}

// R15: a request that was rewritten is denied.
func TestRewritten(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	r := request(key)
	r.Rewritten = true
	wantReason(t, "rewritten", v.Verify(r), policy.Internal)
}

// What an error page gets of a request that was denied: no key, no cookie that holds
// one, no customer token and no other protocol.
func TestLinesOfADenial(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		lines map[string][]string
		want  policy.Reason
		goes  string // the one line that goes on
	}{
		"WebSocket": {map[string][]string{"Authorization": {"Bearer sk"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"a"}, "Sec-Websocket-Version": {"13"}}, policy.BadFormat, ""},
		"cookie":    {map[string][]string{"Cookie": {"k=" + key}, "Accept": {"*/*"}}, policy.InCookie, "Accept"},
		"key":       {map[string][]string{"Authorization": {"Bearer " + key}, "X-Note": {key}, "Content-Type": {key}, "Accept": {"*/*"}}, policy.Malformed, "Accept"},
	} {
		r := request(key)
		r.HTTP11, r.Headers = true, header(tt.lines)
		d := v.Verify(r)
		wantReason(t, name, d, tt.want)
		for _, l := range r.Headers.Lines() {
			if _, ok := d.Line(l.Name, l.Value); ok != (l.Name == tt.goes) && !strings.HasPrefix(l.Name, "Sec-") {
				t.Errorf("%s: %s goes on: %v", name, l.Name, ok)
			}
		}
	}
}

// R3: TLS that a proxy in front ended.
func TestTLSTerminators(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	v := newVerifier(t, core.Config{TLSTerminators: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, peer string
		lines      []string
		want       policy.Reason
	}{
		{"listed, https", "10.1.2.3", []string{"https"}, policy.OK},
		{"listed, mapped", "::ffff:10.1.2.3", []string{"https"}, policy.OK},
		{"listed, http", "10.1.2.3", []string{"http"}, policy.Plaintext},
		{"listed, no header", "10.1.2.3", nil, policy.Plaintext},
		{"listed, two lines", "10.1.2.3", []string{"https", "https"}, policy.Plaintext},
		{"listed, list", "10.1.2.3", []string{"https, https"}, policy.Plaintext},
		{"listed, secure WebSocket", "10.1.2.3", []string{"wss"}, policy.OK},
		{"listed, WebSocket", "10.1.2.3", []string{"ws"}, policy.Plaintext},
		{"not listed", "192.0.2.1", []string{"https"}, policy.Plaintext},
		{"no peer", "", []string{"https"}, policy.Plaintext},
	} {
		r := request(key)
		r.TLS = false
		if tt.peer != "" {
			r.Peer = netip.MustParseAddr(tt.peer)
		}
		r.Headers = core.Lines(append(r.Headers.Lines(), header(map[string][]string{"X-Forwarded-Proto": tt.lines})...))
		wantReason(t, tt.name, v.Verify(r), tt.want)
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		if _, err := core.New(core.Config{TLSTerminators: []netip.Prefix{netip.MustParsePrefix(all)}}); err == nil {
			t.Errorf("%s was accepted", all)
		}
	}
}

// R40: no address that can be believed is no listed address.
func TestNoClientAddress(t *testing.T) {
	now := time.Now()
	key, rec := newKey(t, "key_1")
	rec.Prefixes = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	v := newVerifier(t, core.Config{})
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]netip.Addr{"none": {}, "with a zone": netip.MustParseAddr("fe80::1%eth0")} {
		r := request(key)
		r.ClientIP = func() netip.Addr { return addr }
		wantReason(t, name, v.Verify(r), policy.IP)
	}
	r := request(key)
	r.ClientIP = nil
	wantReason(t, "nothing to ask", v.Verify(r), policy.IP)
	wantReason(t, "an address", v.Verify(request(key)), policy.OK)
}

// R73: keys that are no good look alike to the client.
func TestDenialsLookAlike(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	good, rec := newKey(t, "key_1")
	revokedKey, revokedRec := newKey(t, "key_2")
	revokedRec.Status = bundle.Revoked
	expiredKey, expiredRec := newKey(t, "key_3")
	expiredRec.Expires = 1
	unknown, _ := newKey(t, "key_4")
	if err := v.Activate(newPublisher(t, compiled(t, "default"), now).bundle(now, rec, revokedRec, expiredRec)); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, key := range []string{unknown, revokedKey, expiredKey, good[:len(good)-1] + "!"} {
		d := v.Verify(request(key))
		d.Header = slices.DeleteFunc(d.Header, func(h core.Header) bool { return h.Name == "Request-Id" })
		seen := fmt.Sprint(d.Status, d.Header, string(d.Body))
		if first == "" {
			first = seen
		}
		if seen != first {
			t.Errorf("%s\nis not\n%s", seen, first)
		}
	}
}

// R72: bundles change under load, and no decision mixes two of them.
func TestConcurrentActivation(t *testing.T) {
	now := time.Now()
	v := newVerifier(t, core.Config{})
	p := newPublisher(t, compiled(t, "default"), now)
	key, rec := newKey(t, "key_1")
	if err := v.Activate(p.bundle(now, rec)); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				d := v.Verify(request(key))
				deprecated := slices.Contains(d.Set, core.Header{Name: "Keystile-Deprecated", Value: "true"})
				if d.Reason == policy.OK && deprecated != (d.Key.Status == bundle.Deprecated) || d.Reason != policy.OK && d.Reason != policy.Unknown {
					t.Errorf("%s, %+v, %v", d.Reason, d.Key, d.Set)
					return
				}
			}
		})
	}
	for i := range 60 {
		records := []bundle.Record{rec}
		switch i % 3 {
		case 1:
			records[0].Status = bundle.Deprecated
		case 2:
			records = nil
		}
		if err := v.Activate(p.bundle(now.Add(time.Duration(i+1)*time.Millisecond), records...)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	group.Wait()
}

// core knows no host and does no I/O, natively and for the wasm target.
func TestDependencies(t *testing.T) {
	bad := map[string]string{
		"net/http":                                 "hosts translate HTTP",
		"github.com/caddyserver/caddy":             "a host",
		"go.uber.org/zap":                          "a host's logger",
		"github.com/proxy-wasm":                    "a host",
		"github.com/goccy/go-yaml":                 "edges get the compiled policy",
		"github.com/go-jose/go-jose":               "edges get the compiled keys",
		"github.com/keystile/keystile/caddymodule": "a host",
	}
	for _, target := range []string{"", "wasip1"} {
		cmd := exec.Command("go", "list", "-deps", "github.com/keystile/keystile/core")
		if target != "" {
			cmd.Env = append(cmd.Environ(), "GOOS="+target, "GOARCH=wasm")
		}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			if dep == "github.com/keystile/keystile" {
				t.Error("core imports the root package")
			}
			for prefix, why := range bad {
				if dep == prefix || strings.HasPrefix(dep, prefix+"/") {
					t.Errorf("core depends on %s (target %q): %s", dep, target, why)
				}
			}
		}
	}
	build := exec.Command("go", "build", "github.com/keystile/keystile/core")
	build.Env = append(build.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("core does not build for wasip1: %s", out)
	}
}

// FuzzVerify: no request makes the verifier panic, and none without the key is
// allowed. What explains the decision agrees with it, and shows no key.
func FuzzVerify(f *testing.F) {
	now := time.Now()
	v := newVerifier(f, core.Config{})
	if err := v.Activate(newPublisher(f, compiled(f, "vesuviopay"), now).bundle(now)); err != nil {
		f.Fatal(err)
	}
	f.Add("GET", "api.vesuviopay.com", "/api/v1/sdk/cart/x", "a=b", "Bearer x.y.z", "sk_live_x", "c=d", true)
	f.Add("OPTIONS", "[::1]:8443", "/%2e/", "%", "", "", "", false)
	f.Fuzz(func(t *testing.T, method, authority, path, query, authorization, key, cookie string, tls bool) {
		r := &core.Request{
			TLS: tls, Method: method, Authority: authority, Path: path, Query: query, SNI: authority,
			Headers: header(map[string][]string{"Authorization": {authorization}, "X-Api-Key": {key}, "Cookie": {cookie}, "Origin": {cookie}, "Access-Control-Request-Method": {method}}),
		}
		d := v.Verify(r)
		if d.Outcome == core.Allow || d.Err != nil || d.Outcome == core.Deny && (d.Status == 0 || len(d.Body) == 0) {
			t.Errorf("%+v", d)
		}
		agrees(t, v.Explain(r), d, key)
	})
}
