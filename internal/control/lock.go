package control

import (
	"context"
	"fmt"
	"time"

	"github.com/rogpeppe/go-internal/lockedfile"
)

const lockFile = ".lock"

// lockWait is how long a command waits for another one that publishes.
var lockWait = time.Minute

// lock keeps every other process from writing the published bundle, from before
// it is read until its successor is in its place: an older one would take the
// place of a later one, and with it undo a revocation. It needs no key store.
func (p *Publisher) lock(ctx context.Context) (unlock func(), err error) {
	b := p.bundle
	type lock struct {
		unlock func()
		err    error
	}
	got := make(chan lock)
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	go func() {
		unlock, err := lockedfile.MutexAt(b.path(lockFile)).Lock()
		select {
		case got <- lock{unlock, err}:
		case <-ctx.Done():
			if err == nil {
				unlock()
			}
		}
	}()
	select {
	case l := <-got:
		return l.unlock, l.err
	case <-ctx.Done():
		return nil, fmt.Errorf("bundle %s: another command has been publishing it for %v, and holds %s: %w", b.Name, lockWait, b.path(lockFile), ctx.Err())
	}
}
