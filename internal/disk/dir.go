package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/crash"
)

// maxStartPack is the number of keys up to which a directory also holds the
// bundle as one packed file, for readers that begin with nothing.
const maxStartPack = 10_000

// Content is a bundle as it is written: its notes, and all that they name.
type Content struct {
	Notes    bundle.Notes
	Compiled []byte // the policy
	Tree     bundle.Tree
	// Nodes calls use with every node, in tree order.
	Nodes func(use func(bundle.Hash, []byte) error) error
}

// contentOf is what is in b, with its compiled policy.
func contentOf(b *bundle.Bundle, compiled []byte) *Content {
	return &Content{
		Notes: b.Notes, Compiled: compiled, Nodes: b.Nodes,
		Tree: bundle.Tree{Root: b.Manifest.Root, Keys: b.Manifest.Keys},
	}
}

// WriteDir is [Content.WriteDir] of b, with its compiled policy.
func WriteDir(dir string, b *bundle.Bundle, compiled []byte) (written int, err error) {
	return contentOf(b, compiled).WriteDir(dir)
}

// WriteDir writes c into a directory as a static origin serves it, and returns
// how many nodes were not there yet. It goes from below, each step flushed: nodes,
// compiled policy, policy note, manifest. So a reader finds whatever a manifest
// names, and a crash leaves the bundle before. Objects of earlier bundles stay,
// for edges that have not moved on: see [Prune].
func (c *Content) WriteDir(dir string) (written int, err error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if written, err = c.writeNodes(dir); err != nil {
		return written, err
	}
	crash.Point("nodes")
	if _, err := writeObject(objectFile(dir, bundle.HashOf(c.Compiled)), c.Compiled); err != nil {
		return written, err
	}
	crash.Point("policy")
	if c.Tree.Keys <= maxStartPack {
		if err := c.writeStartPack(dir); err != nil {
			return written, err
		}
	}
	return written, c.writeNotes(dir)
}

// writeNodes writes the nodes that are not there yet, and counts them.
func (c *Content) writeNodes(dir string) (written int, err error) {
	err = c.Nodes(func(hash bundle.Hash, raw []byte) error {
		fresh, err := writeObject(objectFile(dir, hash), raw)
		if fresh {
			written++
		}
		return err
	})
	return written, err
}

// writeNotes puts the bundle in force: the manifest is the last to be written.
func (c *Content) writeNotes(dir string) error {
	for _, note := range []struct {
		file  string
		bytes []byte
	}{{bundle.PathPolicy, c.Notes.PolicyNote}, {bundle.PathManifest, c.Notes.Manifest}} {
		if err := ReplaceBytes(inDir(dir, note.file), 0o644, note.bytes); err != nil {
			return err
		}
		crash.Point(note.file)
	}
	return nil
}

func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return lockedfile.MutexAt(filepath.Join(dir, ".lock")).Lock()
}

// writeObject writes an object that is named by its hash, unless it is there.
func writeObject(path string, b []byte) (written bool, err error) {
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(b)) {
		return false, nil
	}
	return true, ReplaceBytes(path, 0o644, b)
}

func startPack(dir string, root bundle.Hash) string { return inDir(dir, bundle.PathPack(root)) }

func (c *Content) writeStartPack(dir string) error {
	path := startPack(dir, c.Tree.Root)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return c.writePack(path)
}

// WritePack writes b, with its compiled policy, as a packed file.
func WritePack(path string, b *bundle.Bundle, compiled []byte) error {
	return contentOf(b, compiled).writePack(path)
}

func (c *Content) writePack(path string) error {
	var nodes bundle.Nodes
	if err := c.Nodes(nodes.Add); err != nil {
		return err
	}
	return replace(path, 0o644, func(w io.Writer) error {
		return bundle.WritePack(w, c.Notes, c.Compiled, &nodes)
	})
}

// Prune removes from a directory what b, the bundle that is in it, does not
// need, and returns how many files that were. Edges that still use an earlier
// bundle deny what they cannot read any more.
func Prune(dir string, b *bundle.Bundle) (removed int, err error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if now, err := readFile(inDir(dir, bundle.PathManifest), bundle.MaxNote); err != nil || string(now) != string(b.Notes.Manifest) {
		return 0, errors.Join(err, fmt.Errorf("%s: another bundle has been written there meanwhile: try again", dir))
	}
	keep := map[string]bool{
		inDir(dir, bundle.PathManifest): true, inDir(dir, bundle.PathPolicy): true,
		objectFile(dir, b.PolicyNote.PolicyHash): true, startPack(dir, b.Manifest.Root): true,
	}
	if err := b.Nodes(func(hash bundle.Hash, _ []byte) error {
		keep[objectFile(dir, hash)] = true
		return nil
	}); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(filepath.Dir(inDir(dir, bundle.PathManifest)), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || keep[path] {
			return err
		}
		removed++
		return os.Remove(path)
	})
	return removed, err
}

// HoldsBundle says whether a bundle was ever written into dir, whatever is left of it.
func HoldsBundle(dir string) bool {
	_, err := os.Stat(filepath.Dir(inDir(dir, bundle.PathManifest)))
	return err == nil
}
