package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/keystile/keystile/core/policy"
)

// A packed file holds a whole bundle:
//
//	header | policy note | manifest | compiled policy | nodes in tree order | index
//
// The header and the index are hints, outside of what is signed and hashed:
// they say where to read, and the hash of what is read decides. FORMAT.md has
// the layout.
const (
	packMagic  = "\x04\x01keystile pack\n"
	packHeader = 64
	packEntry  = 20
	// packWindow is how many index entries are read at once. Hashes are evenly
	// spread: the first or second window nearly always holds the one looked for.
	packWindow = 128
)

// WritePack writes a packed file.
func WritePack(w io.Writer, notes Notes, compiled []byte, nodes *Nodes) error {
	type entry struct {
		hash   Hash
		offset uint64
		length uint32
	}
	index := make([]entry, len(nodes.order))
	offset := uint64(packHeader + len(notes.PolicyNote) + len(notes.Manifest) + len(compiled))
	for i, h := range nodes.order {
		length := len(nodes.bytes[h])
		index[i] = entry{h, offset, uint32(length)}
		offset += uint64(length)
	}
	slices.SortFunc(index, func(a, b entry) int { return bytes.Compare(a.hash[:], b.hash[:]) })

	header := append(make([]byte, 0, packHeader), packMagic...)
	header = binary.BigEndian.AppendUint32(header, uint32(len(notes.PolicyNote)))
	header = binary.BigEndian.AppendUint32(header, uint32(len(notes.Manifest)))
	header = binary.BigEndian.AppendUint32(header, uint32(len(compiled)))
	header = binary.BigEndian.AppendUint32(header, 0)
	header = binary.BigEndian.AppendUint64(header, offset)
	header = binary.BigEndian.AppendUint64(header, uint64(len(index)))
	header = append(header, make([]byte, packHeader-len(header))...)

	tail := make([]byte, 0, packEntry*len(index))
	for _, e := range index {
		tail = append(tail, e.hash[:8]...)
		tail = binary.BigEndian.AppendUint64(tail, e.offset)
		tail = binary.BigEndian.AppendUint32(tail, e.length)
	}
	for _, part := range [][]byte{header, notes.PolicyNote, notes.Manifest, compiled} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	for _, h := range nodes.order {
		if _, err := w.Write(nodes.bytes[h]); err != nil {
			return err
		}
	}
	_, err := w.Write(tail)
	return err
}

// Pack is an opened packed file. It is a [NodeSource], reads with ReadAt alone
// and is safe for concurrent use if its reader is.
type Pack struct {
	Notes    Notes
	Compiled []byte

	r     io.ReaderAt
	index uint64 // offset
	count uint64 // entries
}

// header is the first bytes of a packed file.
type header struct {
	policy, manifest, compiled uint32 // lengths
	index, count               uint64
}

func readHeader(r io.ReaderAt) (h header, err error) {
	var b [packHeader]byte
	n, err := r.ReadAt(b[:], 0)
	if seen := min(n, len(packMagic)); string(b[:seen]) != packMagic[:seen] {
		return h, foreign("packed file: it does not begin like one of this version")
	}
	if err != nil {
		return h, fmt.Errorf("packed file: its header cannot be read: %w", err)
	}
	fields := b[len(packMagic):]
	h.policy, h.manifest = binary.BigEndian.Uint32(fields), binary.BigEndian.Uint32(fields[4:])
	h.compiled = binary.BigEndian.Uint32(fields[8:])
	h.index, h.count = binary.BigEndian.Uint64(fields[16:]), binary.BigEndian.Uint64(fields[24:])
	if h.policy > MaxNote || h.manifest > MaxNote || h.compiled > policy.MaxSize {
		return h, errors.New("packed file: its notes or policy are too large")
	}
	return h, nil
}

// read reads the notes, and so many bytes of the compiled policy.
func (h header) read(r io.ReaderAt, compiled uint32) (Notes, []byte, error) {
	all := make([]byte, h.policy+h.manifest+compiled)
	if _, err := r.ReadAt(all, packHeader); err != nil {
		return Notes{}, nil, fmt.Errorf("packed file: it is truncated: %w", err)
	}
	end := h.policy + h.manifest
	return Notes{PolicyNote: all[:h.policy:h.policy], Manifest: all[h.policy:end:end]}, all[end:], nil
}

// ReadNotes reads the notes of a packed file and nothing else of it: enough to
// see whether it holds another bundle than before.
func ReadNotes(r io.ReaderAt) (Notes, error) {
	h, err := readHeader(r)
	if err != nil {
		return Notes{}, err
	}
	notes, _, err := h.read(r, 0)
	return notes, err
}

// OpenPack reads the notes and the compiled policy of a packed file of size
// bytes. It verifies nothing: [Open] does.
func OpenPack(r io.ReaderAt, size int64) (*Pack, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	p := &Pack{r: r, index: h.index, count: h.count}
	hi, tail := bits.Mul64(p.count, packEntry)
	if hi != 0 || p.index > uint64(size) || tail != uint64(size)-p.index {
		return nil, fmt.Errorf("packed file: it has %d bytes, and its header says otherwise: it is truncated or damaged", size)
	}
	p.Notes, p.Compiled, err = h.read(r, h.compiled)
	if err != nil {
		return nil, err
	}
	return p, nil
}

var errNotInPack = errors.New("it is not in the packed file")

var windows = sync.Pool{New: func() any { return new([packWindow * packEntry]byte) }}

// guesses is how often an entry's place is guessed from the hash before the
// search goes on by halves: an index that is not evenly spread, as one that was
// made up can be, costs no more than a binary search.
const guesses = 4

// Node reads the node of hash into bytes of its own.
func (p *Pack) Node(hash Hash) ([]byte, error) {
	buf := windows.Get().(*[packWindow * packEntry]byte)
	defer windows.Put(buf)
	want := binary.BigEndian.Uint64(hash[:])
	// The entry is in [lo, hi), whose hashes begin with low to high.
	lo, hi := uint64(0), p.count
	low, high := uint64(0), uint64(math.MaxUint64)
	for round := 0; lo < hi; round++ {
		n := min(hi-lo, packWindow)
		at := lo + (hi-lo)/2
		if round < guesses && low < high && low <= want && want <= high {
			at = lo + uint64(float64(want-low)/float64(high-low)*float64(hi-lo))
		}
		from := min(max(at, lo+n/2)-n/2, hi-n)
		entries := buf[:n*packEntry]
		if _, err := p.r.ReadAt(entries, int64(p.index+from*packEntry)); err != nil {
			return nil, err
		}
		first := binary.BigEndian.Uint64(entries)
		last := binary.BigEndian.Uint64(entries[(n-1)*packEntry:])
		switch {
		case want < first:
			hi, high = from, first
			continue
		case want > last:
			lo, low = from+n, last
			continue
		}
		for e := entries; len(e) > 0; e = e[packEntry:] {
			if binary.BigEndian.Uint64(e) == want {
				return p.read(binary.BigEndian.Uint64(e[8:]), binary.BigEndian.Uint32(e[16:]))
			}
		}
		return nil, errNotInPack
	}
	return nil, errNotInPack
}

func (p *Pack) read(offset uint64, length uint32) ([]byte, error) {
	if length > MaxLeaf || offset > p.index {
		return nil, errors.New("the index of the packed file is damaged")
	}
	b := slices.Grow([]byte(nil), int(length))[:length] // its capacity says what it takes
	if _, err := p.r.ReadAt(b, int64(offset)); err != nil {
		return nil, err
	}
	return b, nil
}

// Nodes holds nodes in memory, in the order in which they were added. It is a
// [NodeSource]; the zero value is empty.
type Nodes struct {
	order []Hash
	bytes map[Hash][]byte
}

// Add keeps a node, as emit of [Build].
func (n *Nodes) Add(hash Hash, b []byte) error {
	if n.bytes == nil {
		n.bytes = make(map[Hash][]byte)
	}
	n.order = append(n.order, hash)
	n.bytes[hash] = b
	return nil
}

// Each calls use with every node, in the order in which they were added.
func (n *Nodes) Each(use func(Hash, []byte) error) error {
	for _, hash := range n.order {
		if err := use(hash, n.bytes[hash]); err != nil {
			return err
		}
	}
	return nil
}

// Node returns the node of hash.
func (n *Nodes) Node(hash Hash) ([]byte, error) {
	b, ok := n.bytes[hash]
	if !ok {
		return nil, errors.New("it is not there")
	}
	return b, nil
}
