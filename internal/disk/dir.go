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

// WriteDir writes b, with its compiled policy, into a directory as a static
// origin serves it, and returns how many nodes were not there yet. It goes from
// below, each step flushed: nodes, compiled policy, policy note, manifest. So a
// reader finds whatever a manifest names, and a crash leaves the bundle before.
// Objects of earlier bundles stay, for edges that have not moved on: see
// [Prune].
func WriteDir(dir string, b *bundle.Bundle, compiled []byte) (written int, err error) {
	unlock, err := lockDir(dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	err = b.Nodes(func(hash bundle.Hash, raw []byte) error {
		fresh, err := writeObject(objectFile(dir, hash), raw)
		if fresh {
			written++
		}
		return err
	})
	if err != nil {
		return written, err
	}
	crash.Point("nodes")
	if _, err := writeObject(objectFile(dir, b.PolicyNote.PolicyHash), compiled); err != nil {
		return written, err
	}
	crash.Point("policy")
	if b.Manifest.Keys <= maxStartPack {
		if err := writeStartPack(dir, b, compiled); err != nil {
			return written, err
		}
	}
	for _, note := range []struct {
		file  string
		bytes []byte
	}{{policyFile, b.Notes.PolicyNote}, {manifestFile, b.Notes.Manifest}} {
		if err := ReplaceBytes(inDir(dir, note.file), 0o644, note.bytes); err != nil {
			return written, err
		}
		crash.Point(note.file)
	}
	return written, nil
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

func startPack(dir string, root bundle.Hash) string { return inDir(dir, "pack", root.String()) }

func writeStartPack(dir string, b *bundle.Bundle, compiled []byte) error {
	path := startPack(dir, b.Manifest.Root)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return WritePack(path, b, compiled)
}

// WritePack writes b, with its compiled policy, as a packed file.
func WritePack(path string, b *bundle.Bundle, compiled []byte) error {
	var nodes bundle.Nodes
	if err := b.Nodes(nodes.Add); err != nil {
		return err
	}
	return Replace(path, 0o644, func(w io.Writer) error {
		return bundle.WritePack(w, b.Notes, compiled, &nodes)
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
	if now, err := readFile(inDir(dir, manifestFile), bundle.MaxNote); err != nil || string(now) != string(b.Notes.Manifest) {
		return 0, errors.Join(err, fmt.Errorf("%s: another bundle has been written there meanwhile: try again", dir))
	}
	keep := map[string]bool{
		inDir(dir, manifestFile): true, inDir(dir, policyFile): true,
		objectFile(dir, b.PolicyNote.PolicyHash): true, startPack(dir, b.Manifest.Root): true,
	}
	if err := b.Nodes(func(hash bundle.Hash, _ []byte) error {
		keep[objectFile(dir, hash)] = true
		return nil
	}); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(inDir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || keep[path] {
			return err
		}
		removed++
		return os.Remove(path)
	})
	return removed, err
}
