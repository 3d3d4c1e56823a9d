package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/policy/compile"
)

// document is the policy of every vector. Its compiled form is the one part that
// is not built here.
const document = `
name: vectors
sources: [{header: X-Api-Key}]
kinds: {secret: {prefix: sk, scoped: true}, public: {prefix: pk}}
environments: {live: , test: }
scopes: {read: , write: }
restrictions: [ip, referrer, endpoint]
routes: [{name: all, path: "/{rest...}", scopes: {GET: read, POST: write}}]
`

const (
	now  = 1_800_000_000_000
	hour = 3_600_000
	day  = 24 * hour
)

var (
	anna, ben  = newSigner("anna"), newSigner("ben")
	stranger   = newSigner("stranger")
	publisher  = newSigner("publisher")
	publisher2 = newSigner("publisher2")
)

// draft is a bundle in pieces. A case changes one of them.
type draft struct {
	vector
	policy  []byte
	records []record
	tree    *tree

	publishers    []string
	noteVersion   int64
	kinds         []string
	environments  []string
	noteLines     func([]string) []string
	noteSigned    func(text string) []byte
	version       int64
	expires       int64
	keys          uint64
	manifestLines func([]string) []string
	manifest      func(text string) []byte
	pack          func(*pack)
}

func newDraft(policy []byte) *draft {
	records := keys(3)
	d := &draft{
		vector: vector{
			signers: []string{anna.verifier(), ben.verifier()}, threshold: 2, bundleName: "vectors", audience: "edge",
			now: now, skew: 60_000, expect: "good",
		},
		policy: policy, publishers: []string{publisher.verifier()},
		noteVersion: now - hour, kinds: []string{"secret", "public"}, environments: []string{"live", "test"},
		noteSigned: func(text string) []byte { return sign(text, anna, ben) },
		version:    now, expires: now + day,
		manifest: func(text string) []byte { return sign(text, publisher) },
	}
	d.use(records)
	return d
}

// use makes records the bundle's.
func (d *draft) use(records []record) {
	d.records, d.tree = records, build(records)
	d.keys = d.tree.count
}

// single makes a bundle of one leaf.
func (d *draft) single(l *leaf) {
	d.records = l.records
	d.tree = &tree{[][]byte{l.bytes()}, uint64(len(l.records))}
	d.keys = d.tree.count
}

// raw makes a bundle of nodes whatever they are; the first is the root.
func (d *draft) raw(count uint64, nodes ...[]byte) {
	d.tree, d.keys = &tree{nodes, count}, count
}

func (d *draft) noteText() string {
	sum := sha256.Sum256(d.policy)
	lines := []string{
		"keystile policy v1", "name vectors", "audience edge", fmt.Sprint("version ", d.noteVersion), "policy " + hex.EncodeToString(sum[:]),
	}
	for _, k := range d.kinds {
		lines = append(lines, "kind "+k)
	}
	for _, e := range d.environments {
		lines = append(lines, "environment "+e)
	}
	for _, p := range d.publishers {
		lines = append(lines, "publisher "+p)
	}
	if d.noteLines != nil {
		lines = d.noteLines(lines)
	}
	return text(lines...)
}

func (d *draft) manifestText(note string) string {
	sum, root := sha256.Sum256([]byte(note)), d.tree.root()
	lines := []string{
		"keystile manifest v1", "policy " + hex.EncodeToString(sum[:]), fmt.Sprint("version ", d.version), fmt.Sprint("expires ", d.expires),
		fmt.Sprint("keys ", d.keys), "root " + hex.EncodeToString(root[:]), "digest sha256",
	}
	if d.manifestLines != nil {
		lines = d.manifestLines(lines)
	}
	return text(lines...)
}

func (d *draft) notes() (note, manifest []byte) {
	noteText := d.noteText()
	return d.noteSigned(noteText), d.manifest(d.manifestText(noteText))
}

func (d *draft) bytes() []byte {
	note, manifest := d.notes()
	p := &pack{magic: "\x04\x01keystile pack\n", note: note, manifest: manifest, policy: d.policy, nodes: d.tree.nodes}
	if d.pack != nil {
		d.pack(p)
	}
	return p.bytes()
}

// state is the two notes as an edge that has accepted them remembers them.
func (d *draft) state() []byte {
	note, manifest := d.notes()
	return slices.Concat(fmt.Appendf(nil, "keystile state v1\npolicy %d\nmanifest %d\n\n", len(note), len(manifest)), note, manifest)
}

// replace returns an edit that replaces a line by others.
func replace(prefix string, with ...string) func([]string) []string {
	return func(lines []string) (out []string) {
		done := false
		for _, l := range lines {
			if strings.HasPrefix(l, prefix) && !done {
				out, done = append(out, with...), true
				continue
			}
			out = append(out, l)
		}
		if !done {
			panic("no line begins with " + prefix)
		}
		return out
	}
}

func add(line string) func([]string) []string {
	return func(lines []string) []string { return append(lines, line) }
}

// oneCase is a vector to be made from a draft.
type oneCase struct {
	name, comment string
	change        func(d *draft)
}

func vectors() ([]*vector, error) {
	p, err := compile.Compile("vectors.yaml", []byte(document), compile.Options{})
	if err != nil {
		return nil, err
	}
	var out []*vector
	for _, c := range slices.Concat(goodCases, noteCases, manifestCases, policyCases, packCases, successionCases, leafCases, branchCases) {
		d := newDraft(p.Encode())
		c.change(d)
		d.name, d.comment = c.name, c.comment
		d.file = d.bytes()
		if d.expect == "good" && len(d.finds) == 0 {
			for _, r := range d.records[:min(3, len(d.records))] {
				d.find(r)
			}
			d.findDigest(digest("nobody's"), "absent")
		}
		if d.expect == "good" && d.walk == "" {
			d.walk = "good"
		}
		out = append(out, &d.vector)
	}
	return out, nil
}

func expect(what string, change func(d *draft)) func(d *draft) {
	return func(d *draft) { d.expect = what; change(d) }
}

var (
	fullIPs    = []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "192.0.2.7/32", "2001:db8::/33"}
	fullLimits = [][2]uint64{{100, 60}, {20_000, 86_400}}
)

func full() record {
	r := key("full",
		field{3, nil, []string{"tenant-1"}},
		field{5, uintValue(1_700_000_000), nil},
		field{7, nil, []string{"read", "write"}},
		field{9, uintValue(1 << 40), nil},
		field{11, nil, []string{"https://*.example.com", "https://shop.example.org"}},
		field{13, slices.Concat([]byte{4, 0}, []byte{4, 8, 10}, []byte{4, 9, 10, 0}, []byte{4, 32, 192, 0, 2, 7}, []byte{6, 33, 0x20, 0x01, 0x0d, 0xb8, 0}), nil},
		field{15, nil, []string{"/a/{b}", "GET /c"}},
		field{17, slices.Concat(integer(100), integer(60), integer(20_000), integer(86_400)), nil})
	r.kind, r.env, r.status = "public", "test", 2
	return r
}

// close are n keys whose digests have their first bits in common.
func closeKeys(n, bits int) (out []record) {
	for i := range n {
		r := key(fmt.Sprint("close ", i))
		r.id = fmt.Sprint("close_", i)
		var d hash
		for b := range 256 {
			v := byte(0xa5>>(b%8)) & 1
			if b >= bits {
				v = byte(i>>(255-b)) & 1
			}
			d[b/8] |= v << (7 - b%8)
		}
		r.digest = d
		out = append(out, r)
	}
	return out
}

var goodCases = []oneCase{
	{"good", "three keys, two signers", func(d *draft) {}},
	{"good_empty", "no keys: the root is a leaf of none", func(d *draft) { d.use(nil) }},
	{"good_one", "one key with no fields", func(d *draft) { d.use([]record{key("alone")}) }},
	{"good_full_record", "every field of a record", func(d *draft) {
		d.use([]record{full(), key("other")})
	}},
	{"good_revoked", "a revoked key is found, and says so", func(d *draft) {
		r := key("revoked")
		r.status = 3
		d.use([]record{r})
	}},
	{"good_64", "a full leaf", func(d *draft) { d.use(keys(64)) }},
	{"good_65", "one more than a leaf: a branch", func(d *draft) { d.use(keys(65)) }},
	{"good_600", "a branch and its leaves", func(d *draft) { d.use(keys(600)) }},
	{"good_two_levels", "65 keys with six bits in common, among others: a branch below a branch, with empty parts", func(d *draft) {
		d.use(append(closeKeys(65, 7), keys(70)...))
		for _, r := range []record{d.records[0], d.records[64], d.records[65]} {
			d.find(r)
		}
		d.findDigest(digest("nobody's"), "absent")
	}},
	{"good_deep", "65 keys with 249 bits in common: branches down to depth 246", func(d *draft) {
		d.use(closeKeys(65, 249))
		d.find(d.records[0])
		d.find(d.records[64])
		d.findDigest(closeKeys(66, 249)[65].digest, "absent")
		d.findDigest(digest("nobody's"), "absent")
	}},
	{"good_last_branch", "128 keys with 249 bits in common: the whole tree goes by its last seven bits", func(d *draft) {
		d.use(closeKeys(128, 249))
	}},
	{"good_unknown_signer", "a line of a signer that nobody knows is ignored", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, stranger, anna, ben) }
	}},
	{"good_unknown_signer_garbage", "so is one whose signature would be wrong", func(d *draft) {
		d.noteSigned = func(text string) []byte {
			return append(sign(text, anna, ben), stranger.lineOf(make([]byte, 64))...)
		}
	}},
	{"good_signers_in_other_order", "the order of signature lines does not matter", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, ben, anna) }
	}},
	{"good_line_twice", "a line that is there twice counts once, and harms nothing", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, anna, ben, anna) }
	}},
	{"good_100_lines", "as many signature lines as there may be", func(d *draft) {
		d.noteSigned = func(text string) []byte {
			return slices.Concat([]byte(text+"\n"), strangers(text, 98), sign(text, anna, ben)[len(text)+1:])
		}
	}},
	{"good_longest_note", "a policy note of 65,536 bytes", func(d *draft) {
		d.noteSigned = func(text string) []byte {
			out := sign(text, anna, ben)
			rest := 65_536 - len(out) - len(signer{"", stranger.private}.line(text))
			return append(out, signer{strings.Repeat("x", rest), stranger.private}.line(text)...)
		}
	}},
	{"good_spare_bits", "bits of base64 that stand for nothing do not matter", func(d *draft) {
		d.manifest = func(text string) []byte {
			out := sign(text, publisher)
			// 68 bytes are 91 characters and one of padding; the last has two spare bits.
			i := len(out) - 3
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			out[i] = alphabet[strings.IndexByte(alphabet, out[i])|1]
			return out
		}
	}},
	{"good_second_publisher", "any listed publisher suffices", func(d *draft) {
		d.publishers = append(d.publishers, publisher2.verifier())
		d.manifest = func(text string) []byte { return sign(text, publisher2) }
	}},
	{"good_one_of_two", "one signature where one is needed", func(d *draft) {
		d.threshold = 1
		d.noteSigned = func(text string) []byte { return sign(text, ben) }
	}},
	{"good_any_name", "no bundle name is configured", func(d *draft) { d.bundleName = "" }},
	{"good_unknown_even_field", "a field with an even number that is not known is skipped", func(d *draft) {
		d.use([]record{key("new", field{100, []byte{1, 2, 3}, nil}), key("other")})
	}},
	{"good_unknown_even_references", "so is one of references; the strings count as referred to", func(d *draft) {
		d.use([]record{key("new", field{102, nil, []string{"what", "why"}}), key("other")})
	}},
	{"good_largest_record", "a record of 2,048 bytes", func(d *draft) { d.use([]record{sized(2048)}) }},
	{"good_seven_days", "the longest life", func(d *draft) { d.expires = d.version + 7*day }},
	{"good_policy_at_skew", "a policy note signed as far ahead as clocks may differ", func(d *draft) { d.noteVersion = d.now + 60_000 }},
	{"good_at_skew", "signed as far ahead as clocks may differ", func(d *draft) { d.now = d.version - 60_000 }},
	{"good_last_millisecond", "before it expires", func(d *draft) { d.now = d.expires - 1 }},
	{"good_at_max_age", "as old as it may get", func(d *draft) { d.now, d.maxAge = d.version+hour, hour }},
	{"walk_key_id_twice", "one key ID for two keys, in two leaves: only who reads all sees it", func(d *draft) {
		records := keys(200)
		records[150].id = records[0].id
		d.use(records)
		d.walk = "refused"
	}},
}

// strangers are signature lines of signers that nobody knows.
func strangers(text string, n int) []byte {
	var out []byte
	for i := range n {
		out = append(out, signer{fmt.Sprint("stranger", i), stranger.private}.line(text)...)
	}
	return out
}

// sized is a record of so many bytes: 32, its body, and the strings it refers to.
func sized(n int) record {
	for filler := n; ; filler-- {
		r := key("large", field{100, bytes.Repeat([]byte{'x'}, filler), nil})
		if size := 32 + len(newLeaf([]record{r}).body(r)) + len(r.kind) + len(r.env); size == n {
			return r
		}
	}
}

// order is that of the curve's base point.
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

// malleable is a second signature: S + L, which a careless verifier takes.
func malleable(signature []byte) []byte {
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order)
	var b [32]byte
	sum.FillBytes(b[:])
	slices.Reverse(b[:])
	return append(slices.Clone(signature[:32]), b[:]...)
}

func point(first, last byte, middle byte) []byte {
	b := bytes.Repeat([]byte{middle}, 32)
	b[0], b[31] = first, last
	return b
}

var noteCases = []oneCase{
	{"trust_none", "no signature is demanded", expect("trust", func(d *draft) { d.threshold = 0 })},
	{"trust_too_many", "more signatures are demanded than keys are trusted", expect("trust", func(d *draft) { d.threshold = 3 })},
	{"trust_one_key_two_names", "one key under two names", expect("trust", func(d *draft) {
		d.signers = []string{anna.verifier(), verifier("annie", anna.public())}
		d.noteSigned = func(text string) []byte {
			return append(sign(text, anna), signer{"annie", anna.private}.line(text)...)
		}
	})},
	{"trust_identity", "the identity: of order 1", expect("trust", func(d *draft) { d.signers[1] = verifier("k", point(1, 0, 0)) })},
	{"trust_low_order", "a point of order 4", expect("trust", func(d *draft) { d.signers[1] = verifier("k", point(0, 0, 0)) })},
	{"trust_not_canonical", "the second spelling of a point of large order: y = 3 as p + 3", expect("trust", func(d *draft) {
		d.signers[1] = verifier("k", point(0xed+3, 0x7f, 0xff))
	})},
	{"trust_not_on_curve", "y = 2 is on no point", expect("trust", func(d *draft) { d.signers[1] = verifier("k", point(2, 0, 0)) })},
	{"trust_short", "31 bytes", expect("trust", func(d *draft) { d.signers[1] = verifier("k", anna.public()[:31]) })},
	{"trust_wrong_hash", "a key hash of another name", expect("trust", func(d *draft) {
		d.signers[1] = strings.Replace(ben.verifier(), "ben+", "bob+", 1)
	})},
	{"trust_other_algorithm", "algorithm 2", expect("trust", func(d *draft) {
		data := append([]byte{2}, ben.public()...)
		sum := sha256.Sum256(append([]byte("ben\n"), data...))
		d.signers[1] = fmt.Sprintf("ben+%x+%s", sum[:4], base64.StdEncoding.EncodeToString(data))
	})},

	{"note_stranger", "signed by nobody who is trusted", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, stranger) }
	})},
	{"note_one_of_two", "one signature, and two are needed", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, anna) }
	})},
	{"note_one_twice", "one signer twice counts once", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte { return sign(text, anna, anna) }
	})},
	{"note_renamed_signer", "a trusted key's signature under another name is a stranger's", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte {
			return append(sign(text, anna), signer{"annie", anna.private}.line(text)...)
		}
	})},
	{"note_bad_signature", "a trusted key's signature that does not verify refuses the note, whatever else is there", expect("policy-note", func(d *draft) {
		d.threshold = 1
		d.noteSigned = func(text string) []byte { return append(sign(text, anna), ben.lineOf(make([]byte, 64))...) }
	})},
	{"note_malleable_signature", "S is not below the group's order", expect("policy-note", func(d *draft) {
		d.threshold = 1
		d.noteSigned = func(text string) []byte {
			return append([]byte(text+"\n"), anna.lineOf(malleable(ed25519.Sign(anna.private, []byte(text))))...)
		}
	})},
	{"note_short_signature", "63 bytes of a signature", expect("policy-note", func(d *draft) {
		d.threshold = 1
		d.noteSigned = func(text string) []byte {
			return append([]byte(text+"\n"), anna.lineOf(ed25519.Sign(anna.private, []byte(text))[:63])...)
		}
	})},
	{"note_empty_signature", "a line without a signature", expect("policy-note", func(d *draft) {
		d.threshold = 1
		d.noteSigned = func(text string) []byte { return []byte(text + "\n— anna \n") }
	})},
	{"note_unsigned", "no signature line", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte { return []byte(text) }
	})},
	{"note_empty", "no policy note", expect("policy-note", func(d *draft) {
		d.noteSigned = func(string) []byte { return nil }
	})},
	{"note_changed", "the text was changed after signing", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte {
			return bytes.Replace(sign(text, anna, ben), []byte("audience edge"), []byte("audience edgy"), 1)
		}
		d.audience = "edgy"
	})},
	{"note_101_lines", "more than 100 signature lines", expect("policy-note", func(d *draft) {
		d.noteSigned = func(text string) []byte { return append(sign(text, anna, ben), strangers(text, 99)...) }
	})},
	{"note_control_character", "a control character", expect("policy-note", func(d *draft) { d.noteLines = replace("kind secret", "kind secret\r") })},
	{"note_other_audience", "it is for another group of edges", expect("policy-note", func(d *draft) { d.audience = "other" })},
	{"note_other_name", "it is for another bundle", expect("policy-note", func(d *draft) { d.bundleName = "other" })},
	{"note_v2", "a first line of the future", expect("policy-note", func(d *draft) { d.noteLines = replace("keystile", "keystile policy v2") })},
	{"note_is_a_manifest", "the first line of the other note", expect("policy-note", func(d *draft) { d.noteLines = replace("keystile", "keystile manifest v1") })},
	{"note_lines_swapped", "lines in another order", expect("policy-note", func(d *draft) {
		d.noteLines = func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }
	})},
	{"note_line_added", "a line that is not known", expect("policy-note", func(d *draft) { d.noteLines = add("comment hello") })},
	{"note_line_missing", "no version", expect("policy-note", func(d *draft) { d.noteLines = func(l []string) []string { return slices.Delete(l, 3, 4) } })},
	{"note_kind_twice", "one kind twice", expect("policy-note", func(d *draft) { d.kinds = []string{"secret", "secret"} })},
	{"note_no_kind", "no kind may be published", expect("policy-note", func(d *draft) { d.kinds = nil })},
	{"note_no_environment", "no environment may be published", expect("policy-note", func(d *draft) { d.environments = nil })},
	{"note_no_publisher", "nobody may publish", expect("policy-note", func(d *draft) { d.publishers = nil })},
	{"note_unknown_kind", "a kind that the policy does not have", expect("policy-note", func(d *draft) { d.kinds = append(d.kinds, "admin") })},
	{"note_unknown_environment", "an environment that the policy does not have", expect("policy-note", func(d *draft) { d.environments = append(d.environments, "dev") })},
	{"note_leading_zero", "a version with a leading zero", expect("policy-note", func(d *draft) { d.noteLines = replace("version", "version 01") })},
	{"note_signed_number", "a version with a sign", expect("policy-note", func(d *draft) { d.noteLines = replace("version", "version +1") })},
	{"note_huge_number", "a version of 2^53", expect("policy-note", func(d *draft) { d.noteLines = replace("version", "version 9007199254740992") })},
	{"note_upper_case_hash", "a hash in upper case", expect("policy-note", func(d *draft) {
		d.noteLines = func(l []string) []string { l[4] = "policy " + strings.ToUpper(l[4][7:]); return l }
	})},
	{"note_empty_value", "a value that is empty", expect("policy-note", func(d *draft) { d.noteLines = replace("name", "name ") })},
}

var manifestCases = []oneCase{
	{"manifest_stranger", "signed by nobody whom the policy note lists", expect("manifest", func(d *draft) {
		d.manifest = func(text string) []byte { return sign(text, stranger) }
	})},
	{"manifest_policy_signer", "a policy signer is no publisher", expect("manifest", func(d *draft) {
		d.manifest = func(text string) []byte { return sign(text, anna) }
	})},
	{"manifest_bad_signature", "a listed publisher's signature that does not verify", expect("manifest", func(d *draft) {
		d.publishers = append(d.publishers, publisher2.verifier())
		d.manifest = func(text string) []byte { return append(sign(text, publisher), publisher2.lineOf(make([]byte, 64))...) }
	})},
	{"manifest_other_note", "signed under another policy note", expect("manifest", func(d *draft) {
		d.manifestLines = replace("policy", "policy "+strings.Repeat("00", 32))
	})},
	{"manifest_changed", "the text was changed after signing", expect("manifest", func(d *draft) {
		d.manifest = func(text string) []byte {
			return bytes.Replace(sign(text, publisher), []byte("keys 3"), []byte("keys 4"), 1)
		}
	})},
	{"manifest_low_order_publisher", "the policy note lists a key of low order", expect("manifest", func(d *draft) {
		d.publishers = append(d.publishers, verifier("k", point(1, 0, 0)))
	})},
	{"manifest_malformed_publisher", "the policy note lists what is no key", expect("manifest", func(d *draft) {
		d.publishers = append(d.publishers, "publisher")
	})},
	{"manifest_no_life", "it expires when it is signed", expect("manifest", func(d *draft) { d.expires = d.version })},
	{"manifest_long_life", "a millisecond over seven days", expect("manifest", func(d *draft) { d.expires = d.version + 7*day + 1 })},
	{"manifest_other_digest", "digests of another algorithm", expect("manifest", func(d *draft) { d.manifestLines = replace("digest", "digest sha512") })},
	{"manifest_huge_count", "2^53 keys", expect("manifest", func(d *draft) { d.manifestLines = replace("keys ", "keys 9007199254740992") })},
	{"manifest_line_added", "a line that is not known", expect("manifest", func(d *draft) { d.manifestLines = add("next 1") })},
	{"manifest_v2", "a first line of the future", expect("manifest", func(d *draft) { d.manifestLines = replace("keystile", "keystile manifest v2") })},
	{"manifest_is_a_policy_note", "the first line of the other note", expect("manifest", func(d *draft) { d.manifestLines = replace("keystile", "keystile policy v1") })},
	{"manifest_empty", "no manifest", expect("manifest", func(d *draft) { d.manifest = func(string) []byte { return nil } })},
}

var policyCases = []oneCase{
	{"policy_changed", "a compiled policy of another hash", expect("policy", func(d *draft) {
		d.pack = func(p *pack) { p.policy = append(bytes.Clone(p.policy), 0) }
	})},
	{"policy_missing", "no compiled policy", expect("policy", func(d *draft) { d.pack = func(p *pack) { p.policy = nil } })},
	{"policy_garbage", "a compiled policy that is none, of the right hash", expect("policy", func(d *draft) { d.policy = []byte("garbage") })},
	{"policy_v2", "a format of the future", expect("policy", func(d *draft) { d.policy = append([]byte{3, 2}, d.policy[2:]...) })},
	{"policy_trailing", "a byte too many", expect("policy", func(d *draft) { d.policy = append(bytes.Clone(d.policy), 0) })},
	{"policy_truncated", "a byte too few", expect("policy", func(d *draft) { d.policy = d.policy[:len(d.policy)-1] })},
	{"policy_unknown_critical_field", "a field of an odd number that is not known", expect("policy", func(d *draft) {
		d.policy = slices.Concat(d.policy, integer(101), lengthAnd([]byte{1}))
	})},
	{"policy_unknown_even_field", "a field of an even number that is not known is skipped", func(d *draft) {
		d.policy = slices.Concat(d.policy, integer(100), lengthAnd([]byte{1}))
	}},
}

func header(at int, value uint64, size int) func(*pack) {
	return func(p *pack) {
		p.header = func(h []byte) {
			if size == 4 {
				binary.BigEndian.PutUint32(h[at:], uint32(value))
			} else {
				binary.BigEndian.PutUint64(h[at:], value)
			}
		}
	}
}

// nodeOf says that every key gets a denial that names the root.
func (d *draft) denied() {
	root := d.tree.root()
	for _, r := range d.records[:min(2, len(d.records))] {
		d.findDigest(r.digest, "node "+hex.EncodeToString(root[:]))
	}
	d.findDigest(digest("nobody's"), "node "+hex.EncodeToString(root[:]))
	d.walk = "refused"
}

var packCases = []oneCase{
	{"pack_magic", "another beginning", expect("pack", func(d *draft) { d.pack = func(p *pack) { p.magic = "\x04\x01keystile pick\n" } })},
	{"pack_v2", "a format of the future", expect("pack", func(d *draft) { d.pack = func(p *pack) { p.magic = "\x04\x02keystile pack\n" } })},
	{"pack_longer", "a byte after the index", expect("pack", func(d *draft) { d.pack = func(p *pack) { p.tail = []byte{0} } })},
	{"pack_index_beyond", "an index beyond the end", expect("pack", func(d *draft) { d.pack = header(32, 1<<40, 8) })},
	{"pack_count_overflows", "a number of nodes whose index would be longer than 2^64 bytes", expect("pack", func(d *draft) { d.pack = header(40, 1<<63, 8) })},
	{"pack_long_note", "a policy note longer than notes can be", expect("pack", func(d *draft) { d.pack = header(16, 65_537, 4) })},
	{"pack_long_policy", "a policy longer than policies can be", expect("pack", func(d *draft) { d.pack = header(24, 1<<20+1, 4) })},
	{"pack_reserved", "what is reserved is not looked at", func(d *draft) { d.pack = header(48, 1<<62, 8) }},
	{"pack_unused_node", "a node that the tree does not have harms nothing", func(d *draft) {
		d.pack = func(p *pack) { p.nodes = append(slices.Clone(p.nodes), []byte("unused")) }
	}},
	{"pack_node_missing", "the index has no entry for the root", func(d *draft) {
		d.denied()
		d.pack = func(p *pack) { p.entries = func([]entry) []entry { return nil } }
	}},
	{"pack_wrong_offset", "the index points a byte too far", func(d *draft) {
		d.denied()
		d.pack = func(p *pack) { p.entries = func(e []entry) []entry { e[0].offset++; return e } }
	}},
	{"pack_wrong_length", "the index gives a byte too few", func(d *draft) {
		d.denied()
		d.pack = func(p *pack) { p.entries = func(e []entry) []entry { e[0].length--; return e } }
	}},
	{"pack_huge_length", "the index gives more than a node can have", func(d *draft) {
		d.denied()
		d.pack = func(p *pack) { p.entries = func(e []entry) []entry { e[0].length = 1 << 31; return e } }
	}},
	{"pack_node_changed", "a bit of the root is flipped", func(d *draft) {
		d.denied()
		d.pack = func(p *pack) {
			root := bytes.Clone(p.nodes[0])
			p.nodes = [][]byte{root}
			p.entries = func(e []entry) []entry {
				sum := d.tree.root()
				e[0].prefix = sum[:8]
				return e
			}
			root[len(root)-1] ^= 1
		}
	}},
}

// before is a bundle that the edge has accepted before.
func (d *draft) before(change func(*draft)) {
	b := newDraft(d.policy)
	change(b)
	d.after = b.state()
}

var successionCases = []oneCase{
	{"after_older", "a later version after an older one", func(d *draft) { d.before(func(b *draft) { b.version-- }) }},
	{"after_itself", "the same texts again, with other signatures on them", func(d *draft) {
		d.before(func(b *draft) {})
		d.noteSigned = func(text string) []byte { return sign(text, ben, stranger, anna) }
	}},
	{"rollback", "a lower version", expect("rollback", func(d *draft) { d.before(func(b *draft) { b.version++ }) })},
	{"rollback_policy", "an older policy note under a fresh manifest", expect("rollback", func(d *draft) {
		d.before(func(b *draft) { b.noteVersion++; b.version -= hour })
	})},
	{"forked", "the same version with another text", expect("forked", func(d *draft) { d.before(func(b *draft) { b.expires++ }) })},
	{"forked_policy", "the same policy version with another text", expect("forked", func(d *draft) {
		d.before(func(b *draft) { b.publishers = append(b.publishers, publisher2.verifier()); b.version-- })
	})},
	{"recovered", "the manifest of a publisher whom the new policy note does not list counts for nothing, however far ahead it is", func(d *draft) {
		d.before(func(b *draft) {
			b.noteVersion--
			b.version += 50_000
			b.publishers = []string{publisher2.verifier()}
			b.manifest = func(text string) []byte { return sign(text, publisher2) }
		})
	}},
	{"not_recovered", "it counts if one of those who signed it is still listed", expect("rollback", func(d *draft) {
		d.before(func(b *draft) {
			b.noteVersion--
			b.version += 50_000
			b.publishers = []string{publisher2.verifier(), publisher.verifier()}
			b.manifest = func(text string) []byte { return sign(text, publisher2, publisher) }
		})
	})},
	{"stolen_key_again", "what the old publisher signs under the old policy note", expect("rollback", func(d *draft) {
		d.before(func(b *draft) {
			b.noteVersion++
			b.publishers = []string{publisher2.verifier()}
			b.manifest = func(text string) []byte { return sign(text, publisher2) }
		})
	})},
	{"after_other_trust", "what was remembered under signers who are trusted no more is dropped", func(d *draft) {
		d.before(func(b *draft) {
			b.version++
			b.noteVersion++
			b.noteSigned = func(text string) []byte { return sign(text, stranger) }
		})
	}},
	{"after_garbage", "what was remembered is garbage, and dropped", func(d *draft) { d.after = []byte("keystile state v1\ngarbage") }},
	{"after_truncated", "what was remembered is cut off, and dropped", func(d *draft) {
		d.before(func(b *draft) { b.version++ })
		d.after = d.after[:len(d.after)-1]
	}},
	{"future", "a version a millisecond further ahead than clocks may differ", expect("future", func(d *draft) { d.now = d.version - 60_001 })},
	{"future_policy", "a policy version a millisecond further ahead than clocks may differ", expect("future", func(d *draft) { d.noteVersion = d.now + 60_001 })},
	{"future_policy_far", "a policy version of the year 2100", expect("future", func(d *draft) { d.noteVersion = 4_102_444_800_000 })},
	{"future_far", "a version of the year 2100", expect("future", func(d *draft) { d.version = 4_102_444_800_000; d.expires = d.version + day })},
	{"expired", "at its end", expect("expired", func(d *draft) { d.now = d.expires })},
	{"too_old", "a millisecond older than it may get", expect("too-old", func(d *draft) { d.now, d.maxAge = d.version+hour+1, hour })},
}

// wrong is a bundle of one leaf with something wrong in it.
func wrong(change func(l *leaf)) func(d *draft) {
	return func(d *draft) {
		l := newLeaf(keys(3))
		change(l)
		d.single(l)
		d.denied()
	}
}

// wrongBody is a bundle of one key whose body is wrong, beside a good one.
func wrongBody(fields ...field) func(d *draft) {
	return func(d *draft) {
		d.use([]record{key("wrong", fields...), key("other")})
		d.denied()
	}
}

// wrongKey is a bundle of a key that alone is refused, beside a good one.
func wrongKey(change func(*record), fields ...field) func(d *draft) {
	return func(d *draft) {
		r := key("wrong", fields...)
		if change != nil {
			change(&r)
		}
		d.use([]record{r, key("other")})
		d.findDigest(r.digest, "key")
		d.find(d.records[1])
		d.findDigest(digest("nobody's"), "absent")
		d.walk = "refused"
	}
}

var leafCases = []oneCase{
	{"leaf_v2", "a format of the future", wrong(func(l *leaf) { l.head[1] = 2 })},
	{"leaf_type", "a type that is no node's", wrong(func(l *leaf) { l.head[0] = 9 })},
	{"leaf_trailing", "a byte too many", wrong(func(l *leaf) { l.tail = []byte{0} })},
	{"leaf_empty_node", "a node of no bytes", func(d *draft) { d.raw(3, nil); d.denied() }},
	{"leaf_truncated", "a byte too few", func(d *draft) {
		b := newLeaf(d.records).bytes()
		d.raw(3, b[:len(b)-1])
		d.denied()
	}},
	{"leaf_count_low", "it says that it has fewer records", wrong(func(l *leaf) { l.count-- })},
	{"leaf_count_high", "it says that it has more records", wrong(func(l *leaf) { l.count++ })},
	{"leaf_count_of_manifest", "the manifest counts another number of keys", func(d *draft) { d.keys++; d.denied() }},
	{"leaf_out_of_order", "records in another order", wrong(func(l *leaf) { l.records[0], l.records[1] = l.records[1], l.records[0] })},
	{"leaf_digest_twice", "one digest twice", wrong(func(l *leaf) { l.records[1].digest = l.records[0].digest })},
	{"leaf_strings_out_of_order", "strings in another order", wrong(func(l *leaf) { l.strings[0], l.strings[1] = l.strings[1], l.strings[0] })},
	{"leaf_string_twice", "one string twice", wrong(func(l *leaf) { l.strings = slices.Insert(l.strings, 0, l.strings[0]) })},
	{"leaf_string_empty", "a string that is empty", wrong(func(l *leaf) { l.strings = slices.Insert(l.strings, 0, "") })},
	{"leaf_string_unused", "a string that no record refers to", wrong(func(l *leaf) { l.strings = append(l.strings, "zzz") })},
	{"leaf_too_many", "65 records in a leaf", func(d *draft) { d.single(newLeaf(keys(65))); d.denied() }},
	{"leaf_long_integer", "an integer with a leading zero digit", wrong(func(l *leaf) { l.head = append(l.head, 0x80) })},
	{"leaf_kind_not_allowed", "a kind that the policy note does not allow", func(d *draft) { d.kinds = []string{"public"}; d.denied() }},
	{"leaf_environment_not_allowed", "an environment that the policy note does not allow", func(d *draft) { d.environments = []string{"test"}; d.denied() }},
	{"leaf_misplaced", "a leaf whose keys belong elsewhere", func(d *draft) {
		records := keys(100)
		for i := range records {
			records[i].digest[0] |= 0x80
		}
		d.misplace(records)
	}},

	{"record_status", "a status that is not known", func(d *draft) {
		r := key("wrong")
		r.status = 4
		d.use([]record{r, key("other")})
		d.denied()
	}},
	{"record_no_status", "status 0", func(d *draft) {
		r := key("wrong")
		r.status = 0
		d.use([]record{r, key("other")})
		d.denied()
	}},
	{"record_no_id", "no key ID", func(d *draft) {
		r := key("wrong")
		r.id = ""
		d.use([]record{r, key("other")})
		d.denied()
	}},
	{"record_long_id", "a key ID of 65 bytes", func(d *draft) {
		r := key("wrong")
		r.id = strings.Repeat("x", 65)
		d.use([]record{r, key("other")})
		d.denied()
	}},
	{"record_empty", "a body of no bytes", func(d *draft) {
		l := newLeaf(keys(3))
		l.records[0].body = []byte{}
		d.single(l)
		d.denied()
	}},
	{"record_reference_beyond", "a kind that is no string of the leaf", wrong(func(l *leaf) { l.records[0].body = []byte{1, 100, 0, 1, 'x'} })},
	{"record_reference_just_beyond", "a kind that is the string after the last", wrong(func(l *leaf) {
		l.records[0].body = []byte{1, byte(len(l.strings)), 0, 1, 'x'}
	})},
	{"record_fields_out_of_order", "fields in another order", wrongBody(field{7, nil, []string{"read"}}, field{3, nil, []string{"t"}})},
	{"record_field_twice", "one field twice", wrongBody(field{9, uintValue(1), nil}, field{9, uintValue(2), nil})},
	{"record_field_zero", "field number 0", wrongBody(field{0, []byte{1}, nil})},
	{"record_field_empty", "a field without a value", wrongBody(field{9, nil, nil})},
	{"record_references_out_of_order", "references that do not ascend", wrongBody(field{7, nil, []string{"write", "read"}})},
	{"record_reference_twice", "one reference twice", wrongBody(field{7, nil, []string{"read", "read"}})},
	{"record_unknown_references", "a field of references that is not known is checked all the same", wrongBody(field{102, []byte{99}, nil})},
	{"record_time_leading_zero", "a time with a leading zero byte", wrongBody(field{9, []byte{0, 1}, nil})},
	{"record_time_too_long", "a time of nine bytes", wrongBody(field{9, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}, nil})},
	{"record_prefix_host_bits", "an IP prefix with bits beyond its length", wrongBody(field{13, []byte{4, 8, 10, 4, 9, 10, 1}, nil})},
	{"record_prefix_mapped", "an IPv4 address in mapped form", wrongBody(field{13, append([]byte{6, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 10, 0, 0, 1), nil})},
	{"record_prefix_long", "33 bits of an IPv4 address", wrongBody(field{13, []byte{4, 33, 10, 0, 0, 0, 0}, nil})},
	{"record_prefix_family", "family 5", wrongBody(field{13, []byte{5, 8, 10}, nil})},
	{"record_prefixes_out_of_order", "IP prefixes in another order", wrongBody(field{13, []byte{4, 8, 11, 4, 8, 10}, nil})},
	{"record_limit_of_nothing", "a limit of no requests", wrongBody(field{17, []byte{0, 1}, nil})},
	{"record_limit_half", "a limit without a window", wrongBody(field{17, []byte{1}, nil})},
	{"record_too_long", "a body of more than 2,048 bytes", wrongBody(field{100, bytes.Repeat([]byte{'x'}, 2049), nil})},

	{"key_unknown_critical_field", "a field of an odd number that is not known denies its key alone", wrongKey(nil, field{101, []byte{1}, nil})},
	{"key_unknown_critical_references", "so does one of references", wrongKey(nil, field{103, nil, []string{"x"}})},
	{"key_reserved_limit", "a number that is reserved for limits is critical", wrongKey(nil, field{19, []byte{1}, nil})},
	{"key_two_tenants", "two tenants", wrongKey(nil, field{3, nil, []string{"a", "b"}})},
	{"key_id_with_comma", "a comma in a key ID", wrongKey(func(r *record) { r.id = "a,b" })},
	{"key_id_not_ascii", "a key ID that is not ASCII", wrongKey(func(r *record) { r.id = "kéy" })},
	{"key_tenant_with_quote", "a quote in a tenant", wrongKey(nil, field{3, nil, []string{`a"b`}})},
	{"key_scope_with_space", "a space in a scope", wrongKey(nil, field{7, nil, []string{"a b"}})},
	{"key_long_tenant", "a tenant of 129 bytes", wrongKey(nil, field{3, nil, []string{strings.Repeat("t", 129)}})},
	{"key_referrer_with_path", "a referrer that is no origin", wrongKey(nil, field{11, nil, []string{"https://a.example/x"}})},
	{"key_bad_endpoint", "an endpoint that is no pattern", wrongKey(nil, field{15, nil, []string{"users"}})},
	{"key_too_large", "a record of 2,049 bytes, its strings counted", wrongKey(func(r *record) {
		*r = sized(2049)
	})},
}

// misplace makes a tree whose keys, all of which begin with bit 1, stand below
// bit 0.
func (d *draft) misplace(records []record) {
	d.use(records)
	parts, nodes := frontier(records, 0, 0)
	parts = append(parts[1:], parts[0]) // the empty half first is the empty half last
	d.raw(d.tree.count, append([][]byte{branch(parts...)}, nodes...)...)
	// Whoever looks below bit 0 finds a leaf that does not belong there.
	for i := range 1000 {
		if asked := digest(fmt.Sprint("asked ", i)); covers(asked, int(parts[0].depth)) {
			d.findDigest(asked, "node "+hex.EncodeToString(parts[0].node[:]))
			break
		}
	}
	d.walk = "refused"
}

// covers says whether d begins with so many zero bits.
func covers(d hash, bits int) bool {
	for i := range bits {
		if bit(d, i) != 0 {
			return false
		}
	}
	return true
}

// wrongBranch is a bundle of 100 keys whose root is wrong.
func wrongBranch(change func(parts []part, nodes [][]byte) []byte) func(d *draft) {
	return func(d *draft) {
		d.use(keys(100))
		parts, nodes := frontier(d.records, 0, 0)
		d.raw(100, append([][]byte{change(parts, nodes)}, nodes...)...)
		d.denied()
	}
}

var branchCases = []oneCase{
	{"branch_count_low", "its parts have fewer records than the manifest says", func(d *draft) { d.use(keys(100)); d.keys++; d.denied() }},
	{"branch_part_count", "one part counts one more, another one less: a leaf has not what its parent says", func(d *draft) {
		d.use(keys(100))
		parts, nodes := frontier(d.records, 0, 0)
		parts[0].count++
		parts[1].count--
		d.raw(100, append([][]byte{branch(parts...)}, nodes...)...)
		for _, r := range d.records {
			if covers(r.digest, int(parts[0].depth)) {
				d.findDigest(r.digest, "node "+hex.EncodeToString(parts[0].node[:]))
				break
			}
		}
		d.walk = "refused"
	}},
	{"branch_huge_count", "a part of 2^56 − 1 records", wrongBranch(func(p []part, _ [][]byte) []byte { p[0].count = 1<<56 - 1; return branch(p...) })},
	{"branch_sum_overflows", "parts whose counts add up beyond 2^56", wrongBranch(func(p []part, _ [][]byte) []byte {
		p[0].count, p[1].count = 1<<56-1, 1<<56-1
		return branch(p...)
	})},
	{"branch_part_missing", "its parts do not cover it", wrongBranch(func(p []part, _ [][]byte) []byte { return branch(p[:len(p)-1]...) })},
	{"branch_part_too_many", "its parts cover more than it", wrongBranch(func(p []part, _ [][]byte) []byte { return branch(append(p, part{1, 0, hash{}})...) })},
	{"branch_misaligned", "parts that fill it, and do not stand at multiples of their widths", wrongBranch(func([]part, [][]byte) []byte {
		return branch(part{2, 33, hash{1}}, part{1, 34, hash{2}}, part{2, 33, hash{3}})
	})},
	{"branch_depth_zero", "a part at depth 0", wrongBranch(func(p []part, _ [][]byte) []byte { p[0].depth = 0; return branch(p...) })},
	{"branch_depth_seven", "a part at depth 7", wrongBranch(func(p []part, _ [][]byte) []byte { p[0].depth = 7; return branch(p...) })},
	{"branch_empty_with_hash", "a part of no records with a hash", wrongBranch(func(p []part, _ [][]byte) []byte {
		p[len(p)-1].count = 0
		return branch(p...)
	})},
	{"branch_full_without_hash", "a part with records without a hash", wrongBranch(func(p []part, _ [][]byte) []byte { p[0].node = hash{}; return branch(p...) })},
	{"branch_needless", "two parts that would fit into one leaf", func(d *draft) {
		d.use(keys(3))
		var half [2][]record
		for _, r := range d.records {
			half[bit(r.digest, 0)] = append(half[bit(r.digest, 0)], r)
		}
		one, two := newLeaf(half[0]).bytes(), newLeaf(half[1]).bytes()
		root := branch(part{1, uint64(len(half[0])), sha256.Sum256(one)}, part{1, uint64(len(half[1])), sha256.Sum256(two)})
		d.raw(3, root, one, two)
		d.denied()
	}},
	{"branch_needless_below", "a leaf of a good branch, divided although it fits", func(d *draft) {
		d.use(keys(100))
		parts, nodes := frontier(d.records, 0, 0)
		var half [2][]record
		for _, r := range d.records {
			if covers(r.digest, int(parts[0].depth)) {
				b := bit(r.digest, int(parts[0].depth))
				half[b] = append(half[b], r)
			}
		}
		one, two := newLeaf(half[0]).bytes(), newLeaf(half[1]).bytes()
		divided := []part{
			{parts[0].depth + 1, uint64(len(half[0])), sha256.Sum256(one)}, {parts[0].depth + 1, uint64(len(half[1])), sha256.Sum256(two)},
		}
		d.raw(100, append([][]byte{branch(append(divided, parts[1:]...)...), one, two}, nodes...)...)
		d.denied()
	}},
	{"branch_undivided", "a part of 65 records at depth 1, as a leaf", func(d *draft) {
		d.use(closeKeys(65, 7))
		l := newLeaf(d.records).bytes()
		first := bit(d.records[0].digest, 0)
		parts := []part{{1, 0, hash{}}, {1, 0, hash{}}}
		parts[first] = part{1, 65, sha256.Sum256(l)}
		d.raw(65, branch(parts...), l)
		d.denied()
	}},
	{"branch_below_its_depth", "a part at depth 5 of the last branch, which has four levels", func(d *draft) {
		d.use(closeKeys(65, 249))
		d.lastBranch()
	}},
	{"branch_trailing", "a byte too many", wrongBranch(func(p []part, _ [][]byte) []byte { return append(branch(p...), 0) })},
	{"branch_truncated", "a byte too few", wrongBranch(func(p []part, _ [][]byte) []byte { b := branch(p...); return b[:len(b)-1] })},
	{"branch_v2", "a format of the future", wrongBranch(func(p []part, _ [][]byte) []byte { b := branch(p...); b[1] = 2; return b })},
	{"branch_is_a_leaf", "a leaf of no records where 100 are said to be", wrongBranch(func([]part, [][]byte) []byte { return newLeaf(nil).bytes() })},
	{"branch_for_a_few", "a branch where a leaf belongs", func(d *draft) {
		d.use(keys(3))
		d.raw(3, branch(part{1, 3, hash{1}}, part{1, 0, hash{}}))
		d.denied()
	}},
	{"branch_of_nothing", "a branch of empty parts for no records", func(d *draft) {
		d.use(nil)
		d.raw(0, branch(part{1, 0, hash{}}, part{1, 0, hash{}}))
		root := d.tree.root()
		d.findDigest(digest("nobody's"), "node "+hex.EncodeToString(root[:]))
		d.walk = "refused"
	}},
}

// lastBranch makes a chain of branches down to depth 252, the last of which goes a
// level too deep.
func (d *draft) lastBranch() {
	l := newLeaf(d.records[:1]).bytes()
	digest := d.records[0].digest
	last := branch(slices.Concat([]part{{5, 1, sha256.Sum256(l)}}, slices.Repeat([]part{{5, 64, hash{1}}}, 31))...)
	nodes := [][]byte{last, l}
	count := uint64(1 + 31*64)
	node := last
	for depth := 246; depth >= 0; depth -= 6 {
		node = branch(chain(digest, depth, 1, count, sha256.Sum256(node))...)
		nodes = append([][]byte{node}, nodes...)
	}
	d.raw(count, nodes...)
	sum := sha256.Sum256(last)
	d.findDigest(digest, "node "+hex.EncodeToString(sum[:]))
	d.walk = "refused"
}

// chain are the parts of a branch all of whose records go one way.
func chain(d hash, depth int, below byte, count uint64, node hash) []part {
	empty := part{below, 0, hash{}}
	on := []part{{6, count, node}}
	if below < 6 {
		on = chain(d, depth, below+1, count, node)
	}
	if bit(d, depth+int(below)-1) == 0 {
		return append(on, empty)
	}
	return append([]part{empty}, on...)
}
