package bundle

import (
	"bytes"
	"cmp"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sort"
	"unsafe"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/wire"
)

// Types and format of nodes, their first two bytes.
const (
	typeBranch = 1
	typeLeaf   = 2
	nodeFormat = 1
)

// Shape of the tree.
const (
	// leafRecords is M: a leaf is the largest binary subtree with at most so
	// many records.
	leafRecords = 64
	branchBits  = 6
	digestBits  = 256
)

// Limits of nodes, for readers.
const (
	maxBranch = 4 << 10
	MaxLeaf   = 2 + leafRecords*(maxRecord+64) // strings are shared, so this is generous
	maxString = maxRecord
)

// place is where in the tree a node stands: the first depth bits of the digests
// below it, and how many of them there are.
type place struct {
	prefix credential.Digest // bits from depth on are not looked at
	depth  int
	count  uint64
}

// covers says whether d is below the place.
func (p place) covers(d *credential.Digest) bool {
	whole := p.depth / 8
	if !bytes.Equal(p.prefix[:whole], d[:whole]) {
		return false
	}
	rest := p.depth % 8
	return rest == 0 || (p.prefix[whole]^d[whole])>>(8-rest) == 0
}

// node is a verified node: a branch or a leaf.
type node struct {
	hash  Hash
	depth int
	count uint64

	// A branch has parts; start[i] is the first six-bit value below part i.
	parts []part
	start []uint8

	// A leaf has the rest.
	allowed *allowed // what it was verified under
	data    []byte
	digests []byte // count × 32 bytes
	bodies  []span
	strings [][]byte
}

// span is a piece of a leaf's data.
type span struct{ from, to uint32 }

// part is one subtree of a branch, depth bits below it.
type part struct {
	depth uint8
	count uint64
	hash  Hash
}

func (n *node) branch() bool { return n.parts != nil }

// size is what the node takes on the heap, in bytes.
func (n *node) size() int64 {
	return int64(unsafe.Sizeof(*n)) + int64(unsafe.Sizeof(part{}))*int64(cap(n.parts)) + int64(cap(n.start)) +
		int64(cap(n.data)) + int64(unsafe.Sizeof(span{}))*int64(cap(n.bodies)) + int64(unsafe.Sizeof([]byte{}))*int64(cap(n.strings))
}

// parseNode verifies everything about a node at a place: name, type, canonical
// form, order of digests, count, kinds and environments.
func parseNode(hash Hash, b []byte, at place, allowed *allowed) (*node, error) {
	if HashOf(b) != hash {
		return nil, errors.New("its bytes do not have this hash")
	}
	if len(b) < 2 {
		return nil, wire.ErrTruncated
	}
	if b[1] != nodeFormat {
		return nil, fmt.Errorf("it has format %d, and this version reads %d: update the edge", b[1], nodeFormat)
	}
	n := &node{hash: hash, depth: at.depth, count: at.count}
	switch b[0] {
	case typeBranch:
		if at.count <= leafRecords || at.depth%branchBits != 0 || len(b) > maxBranch {
			return nil, errors.New("a branch stands where none may")
		}
		return n, n.parseBranch(b[2:])
	case typeLeaf:
		if at.count > leafRecords || len(b) > MaxLeaf {
			return nil, errors.New("a leaf stands where none may")
		}
		return n, n.parseLeaf(b, at, allowed)
	}
	return nil, fmt.Errorf("type %d is not a node's", b[0])
}

func (n *node) parseBranch(b []byte) error {
	levels := min(branchBits, digestBits-n.depth)
	r := wire.NewReader(b)
	next := 0 // six-bit value reached
	var total uint64
	for r.More() {
		p := part{depth: r.Byte(), count: r.Int(wire.MaxInt), hash: Hash(zeroIfShort(r.Take(len(Hash{}))))}
		switch {
		case r.Err() != nil:
		case p.depth < 1 || int(p.depth) > levels:
			r.Fail("a part has depth %d of %d", p.depth, levels)
		case (p.count == 0) != (p.hash == Hash{}):
			r.Fail("an empty part has a hash, or a full one has none")
		case p.count > leafRecords && (int(p.depth) != branchBits || n.depth+branchBits >= digestBits):
			r.Fail("a part of %d records is not divided", p.count)
		case p.count > wire.MaxInt-total:
			r.Fail("it counts too many records")
		}
		if r.Err() != nil {
			break
		}
		n.parts = append(n.parts, p)
		n.start = append(n.start, uint8(next))
		next += 1 << (levels - int(p.depth))
		total += p.count
	}
	if err := r.Done(); err != nil {
		return err
	}
	if total != n.count {
		return fmt.Errorf("its parts hold %d records instead of %d", total, n.count)
	}
	if rest, _, err := subtree(n.parts, 0); err != nil || len(rest) > 0 {
		return cmp.Or(err, errTiling)
	}
	return nil
}

var (
	errTiling   = errors.New("its parts do not tile it")
	errNeedless = errors.New("it divides what fits into a leaf")
)

// subtree takes the parts of one subtree, depth bits below a branch, off parts.
// They make up that subtree, and each division of it was needed: what is divided
// has more than a leaf's records.
func subtree(parts []part, depth int) (rest []part, count uint64, err error) {
	if len(parts) == 0 || int(parts[0].depth) < depth {
		return nil, 0, errTiling
	}
	if int(parts[0].depth) == depth {
		return parts[1:], parts[0].count, nil
	}
	parts, left, err := subtree(parts, depth+1)
	if err != nil {
		return nil, 0, err
	}
	parts, right, err := subtree(parts, depth+1)
	if err == nil && left+right <= leafRecords {
		err = errNeedless
	}
	return parts, left + right, err
}

func zeroIfShort(b []byte) []byte {
	if b == nil {
		return make([]byte, len(Hash{}))
	}
	return b
}

// find returns the part that d is below, and its place.
func (n *node) find(d *credential.Digest, at place) (part, place) {
	levels := min(branchBits, digestBits-n.depth)
	value := bitsAt(d, n.depth, levels)
	i := sort.Search(len(n.start), func(i int) bool { return int(n.start[i]) > value }) - 1
	p := n.parts[i]
	return p, place{*d, at.depth + int(p.depth), p.count}
}

// bitsAt returns n ≤ 8 bits of d from bit at on.
func bitsAt(d *credential.Digest, at, n int) int {
	v := int(d[at/8]) << 8
	if at/8+1 < len(d) {
		v |= int(d[at/8+1])
	}
	return v >> (16 - at%8 - n) & (1<<n - 1)
}

func (n *node) parseLeaf(b []byte, at place, allowed *allowed) error {
	n.data, n.allowed = b, allowed
	r := wire.NewReader(b[2:])
	names := r.Int(uint64(len(b) / 2))
	n.strings = make([][]byte, 0, names) // each takes two bytes of b, or more
	for ; names > 0 && r.Err() == nil; names-- {
		s := r.Bytes(maxString)
		if k := len(n.strings); r.Err() == nil && (len(s) == 0 || k > 0 && bytes.Compare(n.strings[k-1], s) >= 0) {
			r.Fail("its strings are empty or not in ascending order")
		}
		n.strings = append(n.strings, s)
	}
	count := r.Int(leafRecords)
	if r.Err() == nil && count != n.count {
		r.Fail("it holds %d records instead of %d", count, n.count)
	}
	n.digests = r.Take(int(count) * len(credential.Digest{}))
	n.bodies = make([]span, 0, count)
	body := bodyReader{strings: n.strings, used: make([]bool, len(n.strings))}
	may := allowedStrings{allowed, -1, -1}
	for i := range int(count) {
		if r.Err() != nil {
			break
		}
		d := credential.Digest(n.digest(i))
		if !at.covers(&d) || i > 0 && bytes.Compare(n.digest(i-1), d[:]) >= 0 {
			r.Fail("record %d is in the wrong leaf, out of order or there twice", i+1)
			break
		}
		one := r.Bytes(maxRecord)
		end := uint32(2 + r.Offset())
		n.bodies = append(n.bodies, span{end - uint32(len(one)), end})
		if r.Err() == nil {
			kind, environment, err := body.read(one)
			if err == nil {
				err = may.check(n.strings, kind, environment)
			}
			if err != nil {
				r.Fail("record %d: %w", i+1, err)
			}
		}
	}
	if err := r.Done(); err != nil {
		return err
	}
	if slices.Contains(body.used, false) {
		return errors.New("it has a string that no record refers to")
	}
	return nil
}

// allowedStrings remembers which strings of a leaf are kinds and environments
// that may be published: nearly always the last ones asked for.
type allowedStrings struct {
	*allowed
	kind, environment int
}

func (a *allowedStrings) check(strings [][]byte, kind, environment int) error {
	if kind != a.kind && !slices.Contains(a.kinds, string(strings[kind])) ||
		environment != a.environment && !slices.Contains(a.environments, string(strings[environment])) {
		return errors.New("its kind or environment may not be published under the policy note")
	}
	a.kind, a.environment = kind, environment
	return nil
}

func (n *node) digest(i int) []byte { return n.digests[32*i : 32*i+32] }

// record decodes the record of d. It returns nil if the leaf has none.
func (n *node) record(d *credential.Digest) (*Record, error) {
	i := sort.Search(int(n.count), func(i int) bool { return bytes.Compare(n.digest(i), d[:]) >= 0 })
	if i == int(n.count) || subtle.ConstantTimeCompare(n.digest(i), d[:]) != 1 {
		return nil, nil
	}
	return n.recordAt(i)
}

// records calls use with every record of a leaf; a branch has none.
func (n *node) records(use func(*Record) error) error {
	for i := range n.bodies {
		r, err := n.recordAt(i)
		if err == nil {
			err = use(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *node) recordAt(i int) (*Record, error) {
	rec := &Record{Digest: credential.Digest(n.digest(i))}
	body := bodyReader{strings: n.strings, rec: rec}
	raw := n.data[n.bodies[i].from:n.bodies[i].to]
	if _, _, err := body.read(raw); err != nil {
		return nil, err
	}
	if size := len(rec.Digest) + len(raw) + body.referred; size > maxRecord {
		return nil, fmt.Errorf("key %s has a record of %d bytes: at most %d are possible", rec.KeyID, size, maxRecord)
	}
	if body.critical != 0 {
		return nil, fmt.Errorf("key %s has the critical field %d, which this version does not know: update the edge", rec.KeyID, body.critical)
	}
	if err := rec.Check(); err != nil {
		return nil, fmt.Errorf("key %s: %w", rec.KeyID, err)
	}
	return rec, nil
}
