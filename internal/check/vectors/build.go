package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// This file builds bundles from FORMAT.md alone, in the plainest way: it shares
// nothing with core/bundle, so that a mistake in one shows in the other. It
// builds what is wrong, too.

type hash = [32]byte

// signer is a key of these vectors. It is the same at every run, and nobody else
// should trust it.
type signer struct {
	name    string
	private ed25519.PrivateKey
}

func newSigner(name string) signer {
	seed := sha256.Sum256([]byte("keystile test vectors: " + name))
	return signer{name, ed25519.NewKeyFromSeed(seed[:])}
}

func (s signer) public() []byte { return s.private.Public().(ed25519.PublicKey) }

func keyHash(name string, public []byte) []byte {
	sum := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n', 1}, public))
	return sum[:4]
}

// verifier is a public key as notes and configurations write it.
func verifier(name string, public []byte) string {
	return name + "+" + hex.EncodeToString(keyHash(name, public)) + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, public...))
}

func (s signer) verifier() string { return verifier(s.name, s.public()) }

// line is a signature line for text.
func (s signer) line(text string) string {
	return s.lineOf(ed25519.Sign(s.private, []byte(text)))
}

func (s signer) lineOf(signature []byte) string {
	return "— " + s.name + " " + base64.StdEncoding.EncodeToString(append(keyHash(s.name, s.public()), signature...)) + "\n"
}

func sign(text string, signers ...signer) []byte {
	out := text + "\n"
	for _, s := range signers {
		out += s.line(text)
	}
	return []byte(out)
}

func integer(v uint64) []byte {
	out := []byte{byte(v & 0x7f)}
	for v >>= 7; v > 0; v >>= 7 {
		out = append([]byte{byte(v) | 0x80}, out...)
	}
	return out
}

func lengthAnd(b []byte) []byte { return append(integer(uint64(len(b))), b...) }

func uintValue(v uint64) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	return bytes.TrimLeft(b[:], "\x00")
}

// record is one key.
type record struct {
	digest hash
	id     string
	kind   string
	env    string
	status byte
	fields []field
	// body replaces what the rest says.
	body []byte
}

// field is one field of a record's body. Its value is raw, or texts that the
// leaf's strings hold.
type field struct {
	number uint64
	raw    []byte
	texts  []string
}

func digest(label string) hash { return sha256.Sum256([]byte("keystile test vectors: key " + label)) }

// key is an ordinary record.
func key(label string, fields ...field) record {
	return record{digest: digest(label), id: "key_" + label, kind: "secret", env: "live", status: 1, fields: fields}
}

// keys are n ordinary records.
func keys(n int) (out []record) {
	for i := range n {
		out = append(out, key(fmt.Sprint(i), field{3, nil, []string{fmt.Sprintf("tenant_%d", i%5)}}, field{7, nil, []string{"read", "write"}}))
	}
	return out
}

// leaf is a leaf node in pieces, for what is wrong with it.
type leaf struct {
	head    []byte
	strings []string
	count   uint64
	records []record
	tail    []byte
}

func newLeaf(records []record) *leaf {
	l := &leaf{head: []byte{2, 1}, count: uint64(len(records)), records: slices.Clone(records)}
	slices.SortFunc(l.records, func(a, b record) int { return bytes.Compare(a.digest[:], b.digest[:]) })
	for _, r := range records {
		if r.body != nil {
			continue
		}
		l.strings = append(l.strings, r.kind, r.env)
		for _, f := range r.fields {
			l.strings = append(l.strings, f.texts...)
		}
	}
	slices.Sort(l.strings)
	l.strings = slices.Compact(l.strings)
	return l
}

func (l *leaf) index(s string) []byte {
	return integer(uint64(slices.Index(l.strings, s)))
}

func (l *leaf) body(r record) []byte {
	if r.body != nil {
		return r.body
	}
	out := slices.Concat([]byte{r.status}, l.index(r.kind), l.index(r.env), lengthAnd([]byte(r.id)))
	for _, f := range r.fields {
		value := f.raw
		for _, s := range f.texts {
			value = append(value, l.index(s)...)
		}
		out = slices.Concat(out, integer(f.number), lengthAnd(value))
	}
	return out
}

func (l *leaf) bytes() []byte {
	out := append(slices.Clone(l.head), integer(uint64(len(l.strings)))...)
	for _, s := range l.strings {
		out = append(out, lengthAnd([]byte(s))...)
	}
	out = append(out, integer(l.count)...)
	for _, r := range l.records {
		out = append(out, r.digest[:]...)
	}
	for _, r := range l.records {
		out = append(out, lengthAnd(l.body(r))...)
	}
	return append(out, l.tail...)
}

// part is one part of a branch.
type part struct {
	depth byte
	count uint64
	node  hash
}

func branch(parts ...part) []byte {
	out := []byte{1, 1}
	for _, p := range parts {
		out = slices.Concat(out, []byte{p.depth}, integer(p.count), p.node[:])
	}
	return out
}

func bit(d hash, i int) byte { return d[i/8] >> (7 - i%8) & 1 }

// tree is a key tree: its nodes in tree order.
type tree struct {
	nodes [][]byte
	count uint64
}

func (t *tree) root() hash { return sha256.Sum256(t.nodes[0]) }

// build builds the tree of records.
func build(records []record) *tree {
	return &tree{subtree(records, 0), uint64(len(records))}
}

func subtree(records []record, depth int) [][]byte {
	if len(records) <= 64 {
		return [][]byte{newLeaf(records).bytes()}
	}
	parts, below := frontier(records, depth, 0)
	return append([][]byte{branch(parts...)}, below...)
}

func frontier(records []record, depth int, below byte) (parts []part, nodes [][]byte) {
	switch {
	case len(records) == 0:
		return []part{{below, 0, hash{}}}, nil
	case below > 0 && (len(records) <= 64 || below == 6):
		nodes = subtree(records, depth+int(below))
		return []part{{below, uint64(len(records)), sha256.Sum256(nodes[0])}}, nodes
	}
	var half [2][]record
	for _, r := range records {
		b := bit(r.digest, depth+int(below))
		half[b] = append(half[b], r)
	}
	for _, h := range half {
		p, n := frontier(h, depth, below+1)
		parts, nodes = append(parts, p...), append(nodes, n...)
	}
	return parts, nodes
}

// pack is a packed file in pieces.
type pack struct {
	magic                  string
	note, manifest, policy []byte
	nodes                  [][]byte
	entries                func([]entry) []entry // edits the index
	header                 func([]byte)          // edits the header
	tail                   []byte
}

type entry struct {
	prefix []byte
	offset uint64
	length uint32
}

func (p *pack) bytes() []byte {
	body := slices.Concat(p.note, p.manifest, p.policy)
	var index []entry
	for _, n := range p.nodes {
		sum := sha256.Sum256(n)
		index = append(index, entry{sum[:8], 64 + uint64(len(body)), uint32(len(n))})
		body = append(body, n...)
	}
	slices.SortFunc(index, func(a, b entry) int { return bytes.Compare(a.prefix, b.prefix) })
	if p.entries != nil {
		index = p.entries(index)
	}
	header := []byte(p.magic)
	for _, part := range [][]byte{p.note, p.manifest, p.policy, nil} {
		header = binary.BigEndian.AppendUint32(header, uint32(len(part)))
	}
	header = binary.BigEndian.AppendUint64(header, 64+uint64(len(body)))
	header = binary.BigEndian.AppendUint64(header, uint64(len(index)))
	header = append(header, make([]byte, 16)...)
	if p.header != nil {
		p.header(header)
	}
	out := append(header, body...)
	for _, e := range index {
		out = append(out, e.prefix...)
		out = binary.BigEndian.AppendUint64(out, e.offset)
		out = binary.BigEndian.AppendUint32(out, e.length)
	}
	return append(out, p.tail...)
}

// text is the text of a note: its first line, and "word value" lines.
func text(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
