package caddymodule

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
)

// memory is what a guard remembers across restarts: the highest bundle that it has
// accepted.
type memory struct {
	state  *disk.State // nil where nothing is kept
	tell   func(msg string, err error)
	writes bool // else it only looks: `caddy validate` writes nothing

	degraded atomic.Bool // what is in use could not be remembered
	unstored *bundle.Mark
	err      error     // why not
	nextTry  time.Time // to remember it
}

func errState(err error) error {
	return fmt.Errorf("state: %w: name a place that can be written, or set `state off` and min_version", err)
}

// openMemory opens the state in path; "" keeps nothing. What is there and does not
// hold any more is told, and one that cannot be read is an error.
func openMemory(path string, trust *bundle.Trust, tell func(msg string, err error)) (*memory, error) {
	m := &memory{tell: tell}
	if path == "" {
		return m, nil
	}
	m.state = disk.NewState(path, trust)
	switch _, err := m.state.Last(); {
	case errors.Is(err, disk.ErrDropped):
		tell("what this edge remembers cannot be used", err)
	case err != nil:
		return nil, errState(err)
	}
	return m, nil
}

// last is what is remembered, or nil.
func (m *memory) last() *bundle.Mark {
	if m.state == nil {
		return nil
	}
	last, _ := m.state.Last() // an error has been told
	return last
}

// begin allows writing, and remembers the bundle that is in use. A place where nothing
// can be kept is refused, unless it is only full, or locked, at present.
func (m *memory) begin(b *bundle.Bundle) error {
	m.writes = true
	if b == nil {
		return nil
	}
	if err := m.remember(&b.Mark); err != nil {
		return err
	}
	if m.unstored != nil && !errors.Is(m.err, syscall.ENOSPC) && !errors.Is(m.err, disk.ErrLocked) {
		return errState(m.err)
	}
	return nil
}

// remember raises the state. It refuses what the state refuses; a state that
// cannot be written is no reason to go on with keys that may have been revoked.
func (m *memory) remember(mark *bundle.Mark) error {
	if m.state == nil {
		return nil
	}
	if !m.writes {
		return mark.CheckSuccession(m.last())
	}
	err := m.state.Raise(mark)
	if errors.Is(err, bundle.ErrRollback) || errors.Is(err, bundle.ErrForked) {
		return err
	}
	told := err != nil && m.err != nil && err.Error() == m.err.Error()
	m.unstored, m.err, m.nextTry = nil, err, time.Now()
	if err != nil {
		m.unstored = mark
	}
	if err != nil && !errors.Is(err, disk.ErrLocked) { // whether it is locked costs nothing to see
		m.nextTry = m.nextTry.Add(retryInterval)
	}
	if err != nil && !told {
		m.tell("the state cannot be written: the bundle is used, and after a restart an older one would be believed", err)
	}
	m.degraded.Store(m.unstored != nil)
	return nil
}

// again tries again what could not be remembered.
func (m *memory) again() {
	if m.unstored == nil || time.Now().Before(m.nextTry) {
		return
	}
	if err := m.remember(m.unstored); err != nil { // somebody has remembered a later one
		m.unstored = nil
		m.degraded.Store(false)
	}
	if m.unstored == nil {
		m.tell("the state is written again", nil)
	}
}
