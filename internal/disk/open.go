package disk

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Source is a bundle on disk, opened. Its nodes are read when they are asked
// for.
type Source struct {
	Notes    bundle.Notes
	Compiled []byte
	Nodes    bundle.NodeSource
	// Path is where the bundle is.
	Path string

	close func() error
}

// Open opens a packed file or a directory. It verifies nothing:
// [Source.Verify] does. The source has to be closed.
func Open(path string) (*Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var s *Source
	if info.IsDir() {
		s, err = openDir(path)
	} else {
		s, err = openFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.Path = path
	return s, nil
}

// Verify verifies the bundle's signatures and policy, as an edge does.
func (s *Source) Verify(trust *bundle.Trust) (*bundle.Bundle, error) {
	b, err := bundle.Open(s.Notes, s.Compiled, s.Nodes, trust)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Path, err)
	}
	return b, nil
}

// OpenBundle opens and verifies the bundle at path. Its source has to be closed.
func OpenBundle(path string, trust *bundle.Trust) (*bundle.Bundle, *Source, error) {
	s, err := Open(path)
	if err != nil {
		return nil, nil, err
	}
	b, err := s.Verify(trust)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return b, s, nil
}

// Close closes the file. Without it, that happens when nobody uses the bundle
// any more.
func (s *Source) Close() error { return s.close() }

// maxWhole is the largest packed file that is read as a whole, in bytes: about
// 190,000 keys. What is written over it later does not reach the bundle in use.
const maxWhole = 16 << 20

func openFile(path string) (s *Source, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	pack, err := bundle.OpenPack(f, info.Size())
	if err != nil {
		return nil, err
	}
	closer := f.Close
	if info.Size() <= maxWhole {
		if pack, err = readWhole(f, info.Size()); err != nil {
			return nil, err
		}
		closer = func() error { return nil }
		f.Close()
	}
	return &Source{Notes: pack.Notes, Compiled: pack.Compiled, Nodes: pack, close: closer}, nil
}

func readWhole(f *os.File, size int64) (*bundle.Pack, error) {
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("it changes while it is read: %w", err)
	}
	return bundle.OpenPack(bytes.NewReader(b), size)
}

// inDir is where an object of the directory form stands, by its path.
func inDir(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }

func objectFile(dir string, hash bundle.Hash) string { return inDir(dir, bundle.PathNode(hash)) }

// objects reads a directory's objects by name.
type objects string

// Node reads a node.
func (dir objects) Node(hash bundle.Hash) ([]byte, error) {
	return readFile(objectFile(string(dir), hash), bundle.MaxLeaf)
}

func openDir(dir string) (*Source, error) {
	// The manifest first: it is written last, so that what it names is there.
	manifest, err := readFile(inDir(dir, bundle.PathManifest), bundle.MaxNote)
	if err != nil {
		return nil, err
	}
	note, err := readFile(inDir(dir, bundle.PathPolicy), bundle.MaxNote)
	if err != nil {
		return nil, err
	}
	return OpenDir(dir, bundle.Notes{PolicyNote: note, Manifest: manifest})
}

// OpenDir opens the bundle of notes with the objects that are in a directory.
func OpenDir(dir string, notes bundle.Notes) (*Source, error) {
	// Nothing is believed yet: the note only says where the policy is.
	n, err := bundle.ParsePolicyNote(notes.PolicyNote)
	if err != nil {
		return nil, err
	}
	s := &Source{Notes: notes, Nodes: objects(dir), Path: dir, close: func() error { return nil }}
	s.Compiled, err = readFile(objectFile(dir, n.PolicyHash), policy.MaxSize)
	return s, err
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: it has more than %d bytes", path, limit)
	}
	return b, err
}

// Glance is what is seen of a bundle on disk without opening it.
type Glance struct {
	info  fs.FileInfo // of the file that changes when the bundle does
	dir   bool
	notes string // "" where they cannot be read
}

// Look glances at the bundle at path. It fails if there is none.
func Look(path string) (*Glance, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	dir := info.IsDir()
	if dir {
		path = inDir(path, bundle.PathManifest)
		if info, err = os.Stat(path); err != nil {
			return nil, err
		}
	}
	return &Glance{info, dir, notesIn(path, dir)}, nil
}

func notesIn(path string, manifest bool) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if manifest {
		b, _ := io.ReadAll(io.LimitReader(f, bundle.MaxNote)) // what can be read
		return string(b)
	}
	notes, err := bundle.ReadNotes(f)
	if err != nil {
		return ""
	}
	return string(notes.PolicyNote) + string(notes.Manifest)
}

// InPlace says whether the packed file of before was written over, and not replaced: it
// may be half-written. A directory's nodes are there before its notes.
func (g *Glance) InPlace(before *Glance) bool {
	return before != nil && !g.dir && os.SameFile(g.info, before.info)
}

// Same says whether nothing has changed since before, which may be nil. A file's
// size and time are not enough: one that is written over in place keeps its size
// where a key is revoked, and its time within a tick of the clock or by `cp -p`.
func (g *Glance) Same(before *Glance) bool {
	return before != nil && g.notes == before.notes && os.SameFile(g.info, before.info) &&
		g.info.Size() == before.info.Size() && g.info.ModTime().Equal(before.info.ModTime())
}
