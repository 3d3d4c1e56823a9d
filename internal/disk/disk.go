// Package disk keeps bundles on disk: as a packed file or as a directory, which
// edges read, and the state in which an edge remembers what it has accepted.
//
// [OpenBundle] opens and verifies either form. Whatever is written is written
// beside its place, flushed and renamed, so that a reader or a crash meets the
// old file or the new one and nothing between.
package disk

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keystile/keystile/internal/crash"
)

// leftover is how long nobody has written to a file that a crash left beside
// its place.
const leftover = time.Hour

// replace writes a file of the given mode by write, and puts it in path's place.
// The directory is made if it is not there.
func replace(path string, mode os.FileMode, write func(io.Writer) error) error {
	s, err := Stage(path, mode, write)
	if err != nil {
		return err
	}
	defer s.Discard()
	return s.Place()
}

// Staged is a file that is written and flushed beside its place: a full disk
// has been met by then.
type Staged struct{ beside, path string }

// Stage writes a file of the given mode by write beside path. It ends with
// [Staged.Place] or [Staged.Discard].
func Stage(path string, mode os.FileMode, write func(io.Writer) error) (*Staged, error) {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	pattern := "." + name + ".*.new"
	removeLeftovers(filepath.Join(dir, pattern))
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	crash.Point("created")
	err = write(f)
	crash.Point("written")
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	crash.Point("flushed")
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(f.Name())
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &Staged{f.Name(), path}, nil
}

// Place puts the file in its place.
func (s *Staged) Place() error {
	if err := os.Rename(s.beside, s.path); err != nil {
		return fmt.Errorf("writing %s: %w", s.path, err)
	}
	crash.Point("renamed")
	return flushDir(filepath.Dir(s.path))
}

// Discard removes the file, unless it is in its place.
func (s *Staged) Discard() { os.Remove(s.beside) }

// ReplaceBytes puts a file of the given mode and content in path's place, whose
// directory is made if it is not there.
func ReplaceBytes(path string, mode os.FileMode, data []byte) error {
	return replace(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func removeLeftovers(pattern string) {
	found, _ := filepath.Glob(pattern) // a bad pattern finds nothing
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > leftover {
			os.Remove(f)
		}
	}
}

func flushDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
