package control

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/publish"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
)

// Renew signs the published root again, with the publisher's key and what is
// published alone: a store that is lost or broken is no outage. The store does not
// learn of it; what it publishes next comes after the renewed version. But if the
// store can be read and has changes that are not published, they are: what is
// there may be an older copy, and signed again it would let revoked keys pass. The
// bundle keeps its life unless another is given.
func (p *Publisher) Renew(ctx context.Context, life Life) error {
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	opened, source, err := p.openInForce()
	if err != nil {
		return err
	}
	defer source.Close()
	if life != 0 {
		p.bundle.Life = life
	}
	if p.storeIsAhead(ctx, opened) {
		return p.publishLocked(ctx, step{})
	}
	signed, err := p.signAgain(opened, source.Source, life)
	if err != nil {
		return err
	}
	staged, err := p.stage(ctx, signed)
	if err != nil {
		return err
	}
	defer staged.Discard()
	return staged.Place(ctx)
}

// signAgain signs the keys of an opened bundle, under its policy note, as the next
// version. With a life of 0 it lives as long as the one before.
func (p *Publisher) signAgain(opened *bundle.Bundle, source *disk.Source, life Life) (*publish.Signed, error) {
	note := &bundle.Publication{Notes: bundle.Notes{PolicyNote: opened.Notes.PolicyNote}, Compiled: source.Compiled, Note: &opened.PolicyNote}
	tree := bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}
	if life == 0 {
		life = Life(opened.Life())
	}
	return p.seal(note, opened.Manifest.Version, time.Duration(life), tree, opened.Nodes)
}

// Reset begins the bundle's versions anew, at this clock's time. It is for
// versions that were signed far in the future, by a clock that was wrong, and
// refuses where there are none. Edges whose clock was wrong too, and which have
// accepted such a version, remember it.
func (p *Publisher) Reset(ctx context.Context) error {
	// Here the published version counts, however far ahead a renewal has signed it.
	know := func(ctx context.Context, tx store.Tx, last *store.LastSigned) error {
		return p.compareUntil(ctx, tx, last, time.UnixMilli(math.MaxInt64))
	}
	return p.publish(ctx, step{know: know, prepare: p.beginAnew})
}

// beginAnew forgets versions that are too far ahead of this clock to be followed.
func (p *Publisher) beginAnew(_ store.Tx, last *store.LastSigned) error {
	now := p.bundle.home.now()
	_, manifest := bundle.NextVersion(last.Version, now)
	_, policy := bundle.NextVersion(last.PolicyVersion, now)
	if manifest == nil && policy == nil {
		return errors.New("nothing to reset: the last version is not in this clock's future")
	}
	if policy != nil {
		*last = store.LastSigned{}
	}
	last.Version = 0
	return nil
}
