package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/crash"
)

// State is the file in which an edge remembers the highest bundle that it has
// accepted, so that an older one is refused after a restart too. It is only ever
// raised, under a lock, also by several processes.
type State struct {
	path   string
	trust  *bundle.Trust
	locked atomic.Bool // by another process, when it was last tried
}

// How long the state's lock is waited for, and how often it is tried meanwhile.
// Others that write have it for some milliseconds. A process that was stopped
// while it held it must not keep a revocation from this one.
const (
	lockWait = 200 * time.Millisecond
	lockTry  = 2 * time.Millisecond
)

// ErrLocked is wrapped by what [State.Raise] says while another process has the
// state's lock.
var ErrLocked = errors.New("another process has the lock: end that process, or give each its own state")

// NewState is the state in path, for an edge that trusts trust. Each audience but
// the default one has a file of its own beside path, named after it: an edge that
// changes to another audience and back finds what it has accepted in each.
func NewState(path string, trust *bundle.Trust) *State {
	if a := trust.Audience(); a != bundle.DefaultAudience {
		// Without dots: what stands beside a state, such as its lock, has one.
		path += "@" + strings.ReplaceAll(url.PathEscape(a), ".", "%2E")
	}
	return &State{path: path, trust: trust}
}

// Path is where the state is kept.
func (s *State) Path() string { return s.path }

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
// that m cannot follow, and any other if m could not be written. It waits for the
// lock once: as long as others keep it, further calls fail at once.
func (s *State) Raise(m *bundle.Mark) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	lock := flock.New(s.path + ".lock")
	if err := s.take(lock); err != nil {
		return fmt.Errorf("%s: %w", lock.Path(), err)
	}
	defer lock.Close()
	return s.raise(m)
}

// take takes the lock by trying: to wait in the kernel would cost a thread until
// others let it go.
func (s *State) take(lock *flock.Flock) error {
	for begin := time.Now(); ; time.Sleep(lockTry) {
		taken, err := lock.TryLock()
		switch {
		case err != nil:
			return err
		case taken:
			s.locked.Store(false)
			return nil
		case s.locked.Load() || time.Since(begin) > lockWait:
			s.locked.Store(true)
			return ErrLocked
		}
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
