package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/keystile/keystile/caddymodule/internal/crash"
	"github.com/keystile/keystile/core/bundle"
)

// State is the file in which an edge remembers the highest bundle that it has
// accepted, so that an older one is refused after a restart too. It is only ever
// raised, under a lock, also by several processes.
type State struct {
	path  string
	trust *bundle.Trust
}

// lockWait is how long the state's lock may be in other hands. A process that
// was stopped while it held it must not keep a revocation from this one.
const lockWait = 2 * time.Second

// NewState is the state in path, for an edge that trusts trust.
func NewState(path string, trust *bundle.Trust) *State { return &State{path, trust} }

// Last returns what is remembered, or nil if nothing is. It is verified: what
// does not hold under the trust of now counts for nothing, and that is told as an
// error that wraps [ErrDropped].
func (s *State) Last() (*bundle.Mark, error) {
	raw, err := readFile(s.path, 3*bundle.MaxNote)
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.As(err, &pathError):
		return nil, err
	}
	var notes bundle.Notes
	if err == nil {
		notes, err = bundle.ParseState(raw)
	}
	if err == nil {
		var m *bundle.Mark
		if m, err = s.trust.Open(notes); err == nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("state %s: %w: %w", s.path, err, ErrDropped)
}

// ErrDropped is wrapped by what [State.Last] says of a state that does not hold.
var ErrDropped = errors.New("what was remembered is dropped: an older bundle would be accepted once")

// Raise remembers m, in a file whose directory is made. It returns an error that
// wraps [bundle.ErrRollback] or [bundle.ErrForked] if something is remembered
// that m cannot follow, and any other if m could not be written.
func (s *State) Raise(m *bundle.Mark) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		unlock, err := lockedfile.MutexAt(s.path + ".lock").Lock()
		if err == nil {
			err = s.raise(m)
			unlock()
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(lockWait):
		// It goes on once it gets the lock: the state is raised then.
		return fmt.Errorf("%s.lock has been in the hands of another process for %v", s.path, lockWait)
	}
}

func (s *State) raise(m *bundle.Mark) error {
	last, err := s.Last()
	dropped := errors.Is(err, ErrDropped)
	if err != nil && !dropped {
		return err
	}
	if err := m.CheckSuccession(last); err != nil {
		return err
	}
	crash.Point("state read")
	next := bundle.AppendState(nil, m.Notes)
	if last != nil && bytes.Equal(bundle.AppendState(nil, last.Notes), next) {
		return nil
	}
	if dropped { // kept beside, in case that the trust was configured wrongly
		if err := os.Rename(s.path, s.path+".bad"); err != nil {
			return err
		}
	}
	return ReplaceBytes(s.path, 0o600, next)
}
