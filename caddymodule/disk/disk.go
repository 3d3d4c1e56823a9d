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

	"github.com/keystile/keystile/caddymodule/internal/crash"
)

// leftover is how long nobody has written to a file that a crash left beside
// its place.
const leftover = time.Hour

// Replace writes a file of the given mode by write, and puts it in path's place.
// The directory is made if it is not there.
func Replace(path string, mode os.FileMode, write func(io.Writer) error) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	pattern := "." + name + ".*.new"
	removeLeftovers(filepath.Join(dir, pattern))
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
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
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	crash.Point("renamed")
	return flushDir(dir)
}

// ReplaceBytes is [Replace] by data.
func ReplaceBytes(path string, mode os.FileMode, data []byte) error {
	return Replace(path, mode, func(w io.Writer) error {
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
