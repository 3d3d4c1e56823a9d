package bundle

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/edwards25519"
	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
)

const document = `
name: test
sources: [{header: X-Api-Key}]
kinds: {secret: {prefix: sk, scoped: true}, public: {prefix: pk}}
environments: {live: , test: }
scopes: {read: , write: }
routes: [{name: all, path: "/{rest...}", scopes: {GET: read, POST: write}}]
`

func testPolicy(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := compile.Compile("test.yaml", []byte(document), compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type signer struct {
	note.Signer
	key string
}

// newSigner is as bundletest has it, which this package's own tests cannot import.
func newSigner(t testing.TB, name string) signer {
	t.Helper()
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer{s, public}
}

// testRecords makes n records; digests come from a fixed sequence.
func testRecords(n int) []Record {
	records := make([]Record, n)
	for i := range records {
		records[i] = Record{
			Digest: sha256.Sum256(fmt.Appendf(nil, "key %d", i)), KeyID: fmt.Sprintf("key_%06d", i), Kind: "secret",
			Environment: "live", Tenant: fmt.Sprintf("tenant_%d", i%7), Status: Active, Scopes: []string{"read", "write"},
			Expires: 2000000000 + int64(i),
		}
	}
	return records
}

// published is a signed bundle in pieces.
type published struct {
	signers   []signer
	publisher signer
	pub       *Publication
	nodes     *Nodes
	tree      Tree
	notes     Notes
	now       time.Time
}

func publish(t testing.TB, records []Record) *published {
	t.Helper()
	p := &published{
		signers: []signer{newSigner(t, "one"), newSigner(t, "two")}, publisher: newSigner(t, "publisher"),
		nodes: new(Nodes), now: time.UnixMilli(1_800_000_000_000),
	}
	var err error
	p.pub, err = Publish(testPolicy(t), "test", "edge", p.now.UnixMilli(), []string{p.publisher.key}, p.signers[0], p.signers[1])
	if err != nil {
		t.Fatal(err)
	}
	if p.tree, err = Build(records, p.nodes.Add); err != nil {
		t.Fatal(err)
	}
	p.sign(t, p.now.UnixMilli(), DefaultLife)
	return p
}

func (p *published) sign(t testing.TB, version int64, life time.Duration) {
	t.Helper()
	var err error
	if p.notes, err = p.pub.Manifest(p.tree, version, life, p.publisher); err != nil {
		t.Fatal(err)
	}
}

func (p *published) trust(t testing.TB, threshold int) *Trust {
	t.Helper()
	trust, err := NewTrust("test", "edge", threshold, p.signers[0].key, p.signers[1].key)
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func (p *published) open(t testing.TB) *Bundle {
	t.Helper()
	b, err := Open(p.notes, p.pub.Compiled, p.nodes, p.trust(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every key is found with what was published of it, and absence is proven, at
// sizes around the borders of leaves and branches.
func TestFind(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 1000, 5000, 30000} {
		records := testRecords(n)
		b := publish(t, records).open(t)
		cache, err := NewCache(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, n/500)
		for i := 0; i < n; i += step {
			for range 2 {
				got, leaf, err := b.Find(&records[i].Digest, cache)
				if err != nil || got == nil || got.KeyID != records[i].KeyID || got.Tenant != records[i].Tenant ||
					!slices.Equal(got.Scopes, records[i].Scopes) || got.Expires != records[i].Expires || leaf == (Hash{}) {
					t.Fatalf("%d keys: record %d is %+v, %v", n, i, got, err)
				}
			}
		}
		for i := range 200 {
			d := credential.Digest(sha256.Sum256(fmt.Appendf(nil, "other %d", i)))
			if got, _, err := b.Find(&d, cache); got != nil || err != nil {
				t.Fatalf("%d keys: an unknown key gives %v, %v", n, got, err)
			}
		}
		count := 0
		if err := b.Walk(func(*Record) error { count++; return nil }); err != nil || count != n {
			t.Fatalf("%d keys: walking met %d, %v", n, count, err)
		}
	}
}

// The same set in any order gives the same tree, and one change rewrites only
// the nodes on its path.
func TestTreeIsAFunctionOfTheSet(t *testing.T) {
	records := testRecords(3000)
	var first Nodes
	tree, err := Build(slices.Clone(records), first.Add)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mathrand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		again, err := Build(slices.Clone(records), func(Hash, []byte) error { return nil })
		if err != nil || again != tree {
			t.Fatalf("another order gives %v, %v", again, err)
		}
	}
	records[0].Status = Revoked
	changed := 0
	if _, err := Build(records, func(h Hash, b []byte) error {
		if _, same := first.bytes[h]; !same {
			changed++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if changed > 3 {
		t.Errorf("one revocation rewrote %d nodes", changed)
	}
}

func TestFullRecord(t *testing.T) {
	want := Record{
		Digest: sha256.Sum256([]byte("k")), KeyID: "key_1", Kind: "public", Environment: "test", Tenant: "t", Status: Deprecated,
		Scopes: []string{"a", "b"}, NotBefore: 5, Expires: 1 << 40,
		Prefixes:  sortPrefixes([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("2001:db8::/33"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/0")}),
		Referrers: []string{"https://*.example.com", "https://example.org"}, Endpoints: []string{"/a/{b}", "GET /c"},
		Limits: []policy.Limit{{Requests: 100, Window: time.Minute}},
	}
	b := publish(t, []Record{want}).open(t)
	got, _, err := b.Find(&want.Digest, nil)
	if err != nil || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v\n%+v\n%v", got, want, err)
	}
}

// R31, R51: what must not be published.
func TestBuildRefuses(t *testing.T) {
	good := func() []Record { return testRecords(3) }
	for name, change := range map[string]func([]Record){
		"no digest":            func(r []Record) { r[1].Digest = credential.Digest{} },
		"digest twice":         func(r []Record) { r[1].Digest = r[0].Digest },
		"ID twice":             func(r []Record) { r[1].KeyID = r[0].KeyID },
		"no ID":                func(r []Record) { r[1].KeyID = "" },
		"long ID":              func(r []Record) { r[1].KeyID = strings.Repeat("x", maxKeyID+1) },
		"ID with line end":     func(r []Record) { r[1].KeyID = "a\r\nb" },
		"tenant with comma":    func(r []Record) { r[1].Tenant = "a,b" },
		"tenant not ASCII":     func(r []Record) { r[1].Tenant = "é" },
		"scope with space":     func(r []Record) { r[1].Scopes = []string{"a b"} },
		"scopes out of order":  func(r []Record) { r[1].Scopes = []string{"b", "a"} },
		"scope twice":          func(r []Record) { r[1].Scopes = []string{"a", "a"} },
		"no status":            func(r []Record) { r[1].Status = 0 },
		"mapped prefix":        func(r []Record) { r[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} },
		"prefix with host bit": func(r []Record) { r[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")} },
		"referrer with path":   func(r []Record) { r[1].Referrers = []string{"https://a.example/x"} },
		"bad endpoint":         func(r []Record) { r[1].Endpoints = []string{"users"} },
		"too large": func(r []Record) {
			for i := range 200 {
				r[1].Scopes = append(r[1].Scopes, fmt.Sprintf("scope-%020d", i))
			}
			r[1].Scopes = r[1].Scopes[2:]
		},
		"limit of nothing": func(r []Record) { r[1].Limits = []policy.Limit{{}} },
	} {
		records := good()
		change(records)
		if _, err := Build(records, func(Hash, []byte) error { return nil }); err == nil {
			t.Errorf("%s: published", name)
		}
	}
}

// R54, R55, R57: whose bundle is believed.
func TestOpenRefuses(t *testing.T) {
	p := publish(t, testRecords(5))
	stranger := newSigner(t, "stranger")
	open := func(notes Notes, compiled []byte, trust *Trust) error {
		_, err := Open(notes, compiled, p.nodes, trust)
		return err
	}
	trustOf := func(name, audience string, threshold int, keys ...string) *Trust {
		trust, err := NewTrust(name, audience, threshold, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	one, two := p.signers[0].key, p.signers[1].key
	oneSigned, err := Publish(testPolicy(t), "test", "edge", p.now.UnixMilli(), []string{p.publisher.key}, p.signers[0])
	if err != nil {
		t.Fatal(err)
	}
	otherNote, err := Publish(testPolicy(t), "test", "edge", p.now.UnixMilli()+1, []string{p.publisher.key}, p.signers[0], p.signers[1])
	if err != nil {
		t.Fatal(err)
	}
	wrongPublisher, err := p.pub.Manifest(p.tree, p.now.UnixMilli(), DefaultLife, stranger)
	if err != nil {
		t.Fatal(err)
	}
	swapped := Notes{PolicyNote: p.notes.Manifest, Manifest: p.notes.PolicyNote}
	for name, tt := range map[string]struct {
		notes    Notes
		compiled []byte
		trust    *Trust
		want     string
	}{
		"stranger trusted":      {p.notes, p.pub.Compiled, trustOf("test", "edge", 1, stranger.key), "none of the trusted keys"},
		"too few signers":       {Notes{oneSigned.Notes.PolicyNote, p.notes.Manifest}, p.pub.Compiled, p.trust(t, 2), "are needed"},
		"other audience":        {p.notes, p.pub.Compiled, trustOf("test", "other", 1, one, two), "audience"},
		"other name":            {p.notes, p.pub.Compiled, trustOf("other", "edge", 1, one, two), "for the bundle"},
		"wrong publisher":       {wrongPublisher, p.pub.Compiled, p.trust(t, 2), "none of the trusted keys"},
		"manifest of another":   {Notes{otherNote.Notes.PolicyNote, p.notes.Manifest}, p.pub.Compiled, p.trust(t, 2), "another policy note"},
		"notes swapped":         {swapped, p.pub.Compiled, p.trust(t, 1), "none of the trusted keys"},
		"other compiled policy": {p.notes, append(slices.Clone(p.pub.Compiled), 0), p.trust(t, 2), "do not have the hash"},
		"no compiled policy":    {p.notes, nil, p.trust(t, 2), "do not have the hash"},
		"no notes":              {Notes{}, p.pub.Compiled, p.trust(t, 2), "malformed"},
		"unsigned note":         {Notes{[]byte(p.pub.Note.text()), p.notes.Manifest}, p.pub.Compiled, p.trust(t, 1), "malformed"},
		"empty signature":       {Notes{[]byte(p.pub.Note.text() + "\n— one \n"), p.notes.Manifest}, p.pub.Compiled, p.trust(t, 1), "malformed"},
		"very long note":        {Notes{append(slices.Clone(p.notes.PolicyNote), make([]byte, MaxNote)...), p.notes.Manifest}, p.pub.Compiled, p.trust(t, 1), "at most"},
	} {
		if err := open(tt.notes, tt.compiled, tt.trust); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Lines of unknown signers are ignored.
	lines := slices.Concat(p.notes.PolicyNote, lastLine(t, p.pub.Note.text(), stranger))
	if err := open(Notes{lines, p.notes.Manifest}, p.pub.Compiled, p.trust(t, 2)); err != nil {
		t.Errorf("an unknown signer's line: %v", err)
	}
}

func lastLine(t *testing.T, text string, s note.Signer) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		t.Fatal(err)
	}
	return signed[bytes.LastIndex(bytes.TrimSuffix(signed, []byte("\n")), []byte("\n"))+1:]
}

// R55: keys that anyone can sign for, or that have two spellings.
func TestTrustRefuses(t *testing.T) {
	good := newSigner(t, "good").key
	other := strings.Replace(good, "good+", "name+", 1)
	verifier := func(name string, key []byte) string {
		h := sha256.New()
		h.Write([]byte(name + "\n"))
		data := append([]byte{1}, key...)
		h.Write(data)
		return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(h.Sum(nil)), base64.StdEncoding.EncodeToString(data))
	}
	raw := make([]byte, 32)
	data, _ := base64.StdEncoding.DecodeString(strings.SplitN(good, "+", 3)[2])
	copy(raw, data[1:])
	identity := make([]byte, 32)
	identity[0] = 1
	lowOrder := make([]byte, 32) // y = 0: order 4
	// The second spelling of a point with a small y: y + p. One of these is on
	// the curve and of full order, so that nothing but its spelling is wrong.
	nonCanonical := bytes.Repeat([]byte{0xff}, 32)
	nonCanonical[31] = 0x7f
	for y := byte(2); ; y++ {
		nonCanonical[0] = 0xed + y
		point, err := new(edwards25519.Point).SetBytes(nonCanonical)
		if err == nil && new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 0 {
			break
		}
		if y == 18 {
			t.Fatal("no point has a second spelling")
		}
	}
	offCurve := make([]byte, 32)
	offCurve[0] = 2
	for name, tt := range map[string]struct {
		threshold int
		keys      []string
	}{
		"none":                    {1, nil},
		"threshold of zero":       {0, []string{good}},
		"threshold over keys":     {2, []string{good}},
		"malformed":               {1, []string{"x"}},
		"empty":                   {1, []string{""}},
		"wrong hash":              {1, []string{other}},
		"identity":                {1, []string{verifier("k", identity)}},
		"low order":               {1, []string{verifier("k", lowOrder)}},
		"not canonical":           {1, []string{verifier("k", nonCanonical)}},
		"not on the curve":        {1, []string{verifier("k", offCurve)}},
		"one key under two names": {2, []string{good, verifier("again", raw)}},
		"short":                   {1, []string{verifier("k", raw[:31])}},
		"long":                    {1, []string{verifier("k", append(raw, 0))}},
	} {
		if _, err := NewTrust("", "edge", tt.threshold, tt.keys...); err == nil {
			t.Errorf("%s: trusted", name)
		}
	}
	if _, err := NewTrust("", "", 1, good); err == nil {
		t.Error("no audience: trusted")
	}
	if trust, err := ConfiguredTrust("", "", 0, good); err != nil || trust.audience != DefaultAudience || trust.threshold != 1 {
		t.Errorf("what is left out: %+v %v", trust, err)
	}
	if _, err := ConfiguredTrust("", "", 0); err == nil {
		t.Error("no signer: trusted")
	}
	// A private key where a verifier key belongs is told and never repeated (R74).
	private, _, err := note.GenerateKey(rand.Reader, "policy")
	if err != nil {
		t.Fatal(err)
	}
	secret := private[len(private)-30:]
	for name, key := range map[string]string{
		"as it is": private, "in a text": "signer: " + private, "in lower case": "private+key" + private[len("PRIVATE+KEY"):],
	} {
		if _, err := NewTrust("", "edge", 1, key); !errors.Is(err, ErrPrivateKey) || strings.Contains(err.Error(), secret) {
			t.Errorf("a private key %s: %v", name, err)
		}
	}
	// One that has lost its head looks like a verifier key, and so do parts of it.
	_, tail, _ := strings.Cut(private, "policy+")
	for name, key := range map[string]string{
		"without its head": "policy+" + tail, "without its name": tail, "the end alone": private[len(private)-44:], "in percent": strings.ReplaceAll(private, "+", "%2B"),
	} {
		if _, err := NewTrust("", "edge", 1, key); err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("a private key %s: %v", name, err)
		}
	}
}

// R53, R56: time and succession.
func TestTime(t *testing.T) {
	p := publish(t, testRecords(1))
	b := p.open(t)
	for name, tt := range map[string]struct {
		after  time.Duration
		maxAge time.Duration
		want   error
	}{
		"at once":                 {0, 0, nil},
		"just before expiry":      {DefaultLife - time.Millisecond, 0, nil},
		"at expiry":               {DefaultLife, 0, ErrExpired},
		"within max_age":          {time.Hour, time.Hour, nil},
		"over max_age":            {time.Hour + time.Millisecond, time.Hour, ErrTooOld},
		"clock within the skew":   {-DefaultClockSkew, 0, nil},
		"clock behind the skew":   {-DefaultClockSkew - time.Millisecond, 0, ErrFuture},
		"clock behind by decades": {-20 * 365 * 24 * time.Hour, time.Hour, ErrFuture},
	} {
		if err := b.CheckTime(p.now.Add(tt.after), DefaultClockSkew, tt.maxAge); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.Life() != DefaultLife || b.Left(p.now.Add(time.Hour)) != DefaultLife-time.Hour {
		t.Errorf("life %v, left %v", b.Life(), b.Left(p.now.Add(time.Hour)))
	}
	for name, tt := range map[string]struct {
		life, gone time.Duration
		want       Due
	}{
		"a day, new":           {24 * time.Hour, 0, Fresh},
		"a day, before half":   {24 * time.Hour, 12*time.Hour - 1e6, Fresh},
		"a day, half":          {24 * time.Hour, 12 * time.Hour, HalfGone},
		"a day, before 1h":     {24 * time.Hour, 23*time.Hour - 1e6, HalfGone},
		"a day, 1h":            {24 * time.Hour, 23 * time.Hour, NearEnd},
		"a day, over":          {24 * time.Hour, 25 * time.Hour, NearEnd},
		"two hours, 1h":        {2 * time.Hour, time.Hour, HalfGone},
		"two hours, a quarter": {2 * time.Hour, 90 * time.Minute, NearEnd},
		"an hour, new":         {time.Hour, 0, Fresh},
	} {
		m := Mark{Manifest: Manifest{Version: p.now.UnixMilli(), Expires: p.now.Add(tt.life).UnixMilli()}}
		if got := m.Due(p.now.Add(tt.gone)); got != tt.want {
			t.Errorf("%s: %v, not %v", name, got, tt.want)
		}
	}
	if m, err := ParseManifest(b.Notes.Manifest); err != nil || *m != b.Manifest {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range [][]byte{nil, []byte("\n\n"), b.Notes.PolicyNote, b.Notes.Manifest[1:]} {
		if _, err := ParseManifest(bad); err == nil {
			t.Errorf("%q is a manifest", bad)
		}
	}
	for name, life := range map[string]time.Duration{"none": 0, "negative": -time.Second, "too long": MaxLife + time.Millisecond} {
		if _, err := p.pub.Manifest(p.tree, p.now.UnixMilli(), life, p.publisher); err == nil {
			t.Errorf("a life that is %s was signed", name)
		}
	}
}

func TestSuccession(t *testing.T) {
	p := publish(t, testRecords(2))
	first := p.open(t)
	if err := first.CheckSuccession(nil); err != nil {
		t.Error("a first bundle is refused")
	}
	p.sign(t, p.now.UnixMilli()+1, DefaultLife)
	second := p.open(t)
	if err := second.CheckSuccession(&first.Mark); err != nil {
		t.Error(err)
	}
	if err := second.CheckSuccession(&second.Mark); err != nil {
		t.Error("the same bundle again is refused")
	}
	if err := first.CheckSuccession(&second.Mark); !errors.Is(err, ErrRollback) {
		t.Errorf("an older version: %v", err)
	}
	p.sign(t, p.now.UnixMilli()+1, DefaultLife-time.Hour)
	if err := p.open(t).CheckSuccession(&second.Mark); !errors.Is(err, ErrForked) {
		t.Errorf("the same version with another text: %v", err)
	}
	// An old policy note under a fresh manifest.
	older := *p.pub
	fresh, err := Publish(testPolicy(t), "test", "edge", p.now.UnixMilli()+5, []string{p.publisher.key}, p.signers[0], p.signers[1])
	if err != nil {
		t.Fatal(err)
	}
	p.pub = fresh
	p.sign(t, p.now.UnixMilli()+5, DefaultLife)
	third := p.open(t)
	p.pub = &older
	p.sign(t, p.now.UnixMilli()+6, DefaultLife)
	if err := p.open(t).CheckSuccession(&third.Mark); !errors.Is(err, ErrRollback) {
		t.Errorf("an older policy note: %v", err)
	}
}

func TestNextVersion(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	for name, tt := range map[string]struct {
		last, want int64
		ok         bool
	}{
		"first":            {0, now.UnixMilli(), true},
		"later":            {now.UnixMilli() - 5, now.UnixMilli(), true},
		"same millisecond": {now.UnixMilli(), now.UnixMilli() + 1, true},
		"clock set back":   {now.UnixMilli() + 1000, now.UnixMilli() + 1001, true},
		"far ahead":        {now.UnixMilli() + 61_000, 0, false},
	} {
		if got, err := NextVersion(tt.last, now); got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

// Whatever happens to a packed file, a key is found as in the good one, or not
// at all with the node named, or the file is refused: nothing is ever made up.
func TestDamagedPack(t *testing.T) {
	records := testRecords(150)
	p := publish(t, records)
	var pack bytes.Buffer
	if err := WritePack(&pack, p.notes, p.pub.Compiled, p.nodes); err != nil {
		t.Fatal(err)
	}
	good := pack.Bytes()
	trust := p.trust(t, 2)
	probe := func(name string, damaged []byte) {
		opened, err := OpenPack(bytes.NewReader(damaged), int64(len(damaged)))
		if err != nil {
			return
		}
		b, err := Open(opened.Notes, opened.Compiled, opened, trust)
		if err != nil {
			return
		}
		for i := 0; i < len(records); i += 37 {
			rec, _, err := b.Find(&records[i].Digest, nil)
			var node *NodeError
			switch {
			case err == nil && rec != nil && rec.KeyID == records[i].KeyID && rec.Status == Active:
			case errors.As(err, &node):
			default:
				t.Fatalf("%s: %+v, %v", name, rec, err)
			}
		}
	}
	for i := range good {
		for bit := range 8 {
			if (i+bit)%37 != 0 {
				continue // core flips every bit of a smaller one
			}
			damaged := slices.Clone(good)
			damaged[i] ^= 1 << bit
			probe(fmt.Sprintf("bit %d of byte %d", bit, i), damaged)
		}
	}
	for n := 0; n < len(good); n += 1 + n/50 {
		probe(fmt.Sprintf("cut to %d bytes", n), good[:n])
	}
	probe("grown", append(slices.Clone(good), make([]byte, 100)...))
}

// A leaf must stand where it belongs and hold what was counted.
func TestMisplacedNode(t *testing.T) {
	p := publish(t, testRecords(200))
	b := p.open(t)
	root, err := b.nodes.Node(b.Manifest.Root)
	if err != nil {
		t.Fatal(err)
	}
	at := place{count: b.Manifest.Keys}
	n, err := parseNode(b.Manifest.Root, root, at, b.allowed)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(n.parts, func(p part) bool { return p.count > 0 })
	leafAt := place{depth: int(n.parts[i].depth), count: n.parts[i].count}
	setBits(&leafAt.prefix, 0, branchBits, int(n.start[i]))
	raw, err := b.nodes.Node(n.parts[i].hash)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		at      place
		allowed allowed
		ok      bool
	}{
		"right":             {leafAt, *b.allowed, true},
		"other prefix":      {place{prefix: credential.Digest{0: ^leafAt.prefix[0]}, depth: leafAt.depth, count: leafAt.count}, *b.allowed, false},
		"other count":       {place{leafAt.prefix, leafAt.depth, leafAt.count - 1}, *b.allowed, false},
		"kind not allowed":  {leafAt, allowed{[]string{"public"}, b.allowed.environments}, false},
		"other environment": {leafAt, allowed{b.allowed.kinds, []string{"test"}}, false},
	} {
		if _, err := parseNode(n.parts[i].hash, raw, tt.at, &tt.allowed); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseNode(b.Manifest.Root, root, place{count: b.Manifest.Keys + 1}, b.allowed); err == nil {
		t.Error("a branch that counts other than its parent was accepted")
	}
	if _, err := parseNode(b.Manifest.Root, root, place{depth: 3, count: b.Manifest.Keys}, b.allowed); err == nil {
		t.Error("a branch at a depth that is no multiple of six was accepted")
	}
}

// A field that this version does not know: critical ones deny their key alone.
// R52: what is not known and critical denies the key.
func TestUnknownFields(t *testing.T) {
	rec := testRecords(1)[0]
	encode := func(number uint64, value []byte) []byte {
		leaf := new(treeBuilder).leaf([]Record{rec})
		body := rec.appendBody(nil, func(s string) uint64 {
			names := []string{}
			rec.strings(func(s string) { names = append(names, s) })
			slices.Sort(names)
			return uint64(slices.Index(slices.Compact(names), s))
		})
		prefix := bytes.TrimSuffix(leaf, append(appendLen(len(body)), body...))
		body = append(body, byte(number), byte(len(value)))
		body = append(body, value...)
		return append(append(prefix, appendLen(len(body))...), body...)
	}
	at := place{prefix: rec.Digest, count: 1}
	allowed := &allowed{[]string{"secret"}, []string{"live"}}
	for name, tt := range map[string]struct {
		number     uint64
		value      []byte
		parse, use bool
	}{
		"not critical":              {100, []byte{1, 2}, true, true},
		"critical":                  {101, []byte{1, 2}, true, false},
		"references":                {102, []byte{0, 1}, true, true},
		"references out of range":   {102, []byte{9}, false, false},
		"references not ascending":  {102, []byte{1, 0}, false, false},
		"critical, references":      {103, []byte{0}, true, false},
		"empty":                     {100, nil, false, false},
		"number lower than another": {2, []byte{0}, false, false},
	} {
		b := encode(tt.number, tt.value)
		n, err := parseNode(HashOf(b), b, at, allowed)
		if (err == nil) != tt.parse {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			continue
		}
		if _, err := n.record(&rec.Digest); (err == nil) != tt.use {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func appendLen(n int) []byte {
	if n > 127 {
		return []byte{byte(n>>7) | 0x80, byte(n & 0x7f)}
	}
	return []byte{byte(n)}
}

func FuzzNode(f *testing.F) {
	records := testRecords(130)
	p := publish(f, records)
	for _, h := range p.nodes.order {
		f.Add(p.nodes.bytes[h], uint64(p.tree.Keys), 0)
	}
	empty := new(treeBuilder).leaf(nil)
	f.Add(empty, uint64(0), 0)
	allowed := &allowed{[]string{"secret"}, []string{"live"}}
	f.Fuzz(func(t *testing.T, b []byte, count uint64, depth int) {
		if depth < 0 || depth > 255 {
			return
		}
		// The hash is right for any bytes: what is asked is that nothing else
		// makes the parser trip.
		n, err := parseNode(HashOf(b), b, place{depth: depth, count: count}, allowed)
		if err != nil || n.branch() {
			return
		}
		for i := range int(n.count) {
			if rec, err := n.recordAt(i); err == nil && rec.Check() != nil {
				t.Error("an accepted record cannot be published")
			}
		}
	})
}

func FuzzNotes(f *testing.F) {
	p := publish(f, testRecords(3))
	f.Add(p.pub.Note.text(), (&Manifest{PolicyNoteHash: p.pub.Note.Hash(), Version: 1, Expires: 2, Keys: 3, Root: p.tree.Root}).text())
	f.Fuzz(func(t *testing.T, a, b string) {
		if n, err := parsePolicyNote(a); err == nil && n.text() != a {
			t.Error("a policy note is read as another text")
		}
		if m, err := parseManifest(b); err == nil && m.text() != b {
			t.Error("a manifest is read as another text")
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	records := testRecords(100_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(records, func(Hash, []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
