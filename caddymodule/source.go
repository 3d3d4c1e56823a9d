package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
)

// pollInterval is how often a bundle's file is looked at. A look at a file's state
// and at the notes at its head costs some microseconds and works on every file
// system, for files that are replaced or written over and for those that appear
// later.
const pollInterval = 200 * time.Millisecond

// retryInterval is how long a guard waits before it tries again what failed: to read a
// bundle that was refused, or to remember one.
const retryInterval = 5 * time.Second

// fileSource finds bundles in a packed file or a directory.
type fileSource struct {
	path  string
	trust *bundle.Trust

	seen     *disk.Glance // the bundle as it was last looked at
	again    bool         // what was seen was refused, and may be good later
	nextLook time.Time    // at what is to be looked at again
	refusal  string       // of what was seen
}

// goneError says that there was a bundle at the last look, and is none now.
type goneError struct{ error }

// look gives use the bundle if it has changed since the last look, or there is doubt
// that it is what it was. found is false if there is none. err says why a bundle was
// refused, once.
func (s *fileSource) look(doubt bool, use func(*bundle.Bundle) error) (found bool, err error) {
	seen, err := disk.Look(s.path)
	if err != nil {
		before := s.seen
		if s.seen = nil; before != nil {
			return false, goneError{err}
		}
		return false, nil // that has been told
	}
	same := seen.Same(s.seen)
	if same && !doubt && (!s.again || time.Now().Before(s.nextLook)) {
		return true, nil
	}
	inPlace := seen.InPlace(s.seen)
	s.seen = seen
	err = s.load(inPlace, use)
	s.lookAgain(err)
	before := s.refusal
	if s.refusal = ""; err != nil {
		s.refusal = err.Error()
	}
	if same && s.refusal == before {
		return true, nil
	}
	return true, err
}

// lookAgain says when the source looks again at what was refused, though nothing of
// it can be seen to change: at once where the clock, or the disk, was in the way,
// else after a while, since it may have been caught half-written.
func (s *fileSource) lookAgain(err error) {
	var path *fs.PathError
	s.again, s.nextLook = err != nil, time.Time{}
	if err != nil && !errors.Is(err, bundle.ErrFuture) && !errors.As(err, &path) {
		s.nextLook = time.Now().Add(retryInterval)
	}
}

// load gives use the bundle on disk. A large packed file stays open as long as its
// bundle is in use, and is closed when that is collected. One that is written over in
// place is read to its end before: what is half there must not take the place of what is
// whole.
func (s *fileSource) load(inPlace bool, use func(*bundle.Bundle) error) error {
	b, source, err := disk.OpenBundle(s.path, s.trust)
	if err != nil {
		return err
	}
	if inPlace {
		err = b.Nodes(func(bundle.Hash, []byte) error { return nil })
	}
	if err == nil {
		err = use(b)
	}
	if err != nil {
		source.Close()
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

// under opens the bundle of notes that were accepted before, from a directory, which
// keeps what an earlier bundle needs, also while its notes are being replaced.
func (s *fileSource) under(notes bundle.Notes) (*bundle.Bundle, error) {
	source, err := disk.OpenDir(s.path, notes)
	if err != nil {
		return nil, nil // it is no directory, or there is nothing
	}
	return source.Verify(s.trust)
}
