package control

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/publish"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/crash"
)

// Publisher signs what a bundle's store and policy say, and writes it out.
type Publisher struct{ bundle *Bundle }

// Build builds the bundle from the store and the policy as they are, signs it,
// and writes it out. It returns an error that wraps [ErrUnsigned] if the policy
// has changed and its signers are elsewhere, and one that wraps [ErrStoreBehind]
// if the store lacks what is in force.
func (p *Publisher) Build(ctx context.Context) error {
	return p.publish(ctx, step{whole: true, accept: p.onlyNew})
}

// BuildTrusting is Build from a store that is right although it lacks what is in
// force, or although nobody can tell.
func (p *Publisher) BuildTrusting(ctx context.Context) error {
	return p.publish(ctx, step{know: p.trustStore, open: p.bundle.home.makeStore, whole: true, accept: p.onlyNew})
}

// onlyNew refuses a policy note that is not for the policy as it is.
func (p *Publisher) onlyNew(note *bundle.Publication) error {
	if !p.isFor(note) {
		return ErrUnsigned
	}
	return nil
}

// change applies a change of keys and publishes the outcome.
func (p *Publisher) change(ctx context.Context, apply func(store.Tx) error) error {
	return p.publish(ctx, step{prepare: func(tx store.Tx, _ *store.LastSigned) error { return apply(tx) }})
}

// step is one publication.
type step struct {
	// open opens the store; nil is one that has to be there.
	open func() (store.Store, error)
	// know holds the store against what is in force, and takes over what has to
	// be lower than the next version; nil is [Publisher.compare].
	know func(context.Context, store.Tx, *store.LastSigned) error
	// prepare changes keys, or what counts as published last; may be nil.
	prepare func(store.Tx, *store.LastSigned) error
	// whole builds the tree of all keys anew.
	whole bool
	// accept may refuse the policy note that the version would be under.
	accept func(*bundle.Publication) error
}

// publish signs a new version and writes it out, under the bundle's lock. The
// sinks stage it before the commit, so that a full disk changes nothing, and
// place it afterwards: a crash between the two leaves an old file, which the next
// change or Build replaces, and never a file that the store does not know. A
// version is never signed twice.
func (p *Publisher) publish(ctx context.Context, s step) error {
	unlock, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return p.publishLocked(ctx, s)
}

func (p *Publisher) publishLocked(ctx context.Context, s step) error {
	staged, err := p.commit(ctx, s)
	if staged != nil {
		defer staged.Discard()
	}
	if err != nil {
		return err
	}
	crash.Point("committed")
	if err := staged.Place(ctx); err != nil {
		return fmt.Errorf("the change is in the key store, and not everywhere where it is published: mend that, and give `caddy keystile bundle build`: %w", err)
	}
	return p.bundle.promote()
}

// commit changes keys, signs the version that follows and stages it, in one
// transaction. What is staged may have to be discarded, also after an error.
func (p *Publisher) commit(ctx context.Context, s step) (staged publish.Staged, err error) {
	if s.open == nil {
		s.open = p.bundle.home.store
	}
	opened, err := s.open()
	if err != nil {
		return nil, err
	}
	err = opened.Update(ctx, p.bundle.Name, func(tx store.Tx) error {
		signed, err := p.next(ctx, tx, s)
		if err != nil {
			return err
		}
		if staged, err = p.stage(ctx, signed); err != nil {
			return err
		}
		return tx.SetLastSigned(ctx, lastSigned(signed))
	})
	return staged, err
}

// stage makes a signed version ready to be placed.
func (p *Publisher) stage(ctx context.Context, s *publish.Signed) (publish.Staged, error) {
	crash.Point("signed")
	return p.bundle.sinks().Stage(ctx, s)
}

// next signs the version after the last one.
func (p *Publisher) next(ctx context.Context, tx store.Tx, s step) (*publish.Signed, error) {
	before, err := tx.LastSigned(ctx)
	if err != nil {
		return nil, err
	}
	changed := &edits{Tx: tx}
	last, err := p.last(ctx, changed, before, s)
	if err != nil {
		return nil, err
	}
	note, err := p.nextPublication(last)
	if err == nil && s.accept != nil {
		err = s.accept(note)
	}
	if err != nil {
		return nil, err
	}
	g := growth{publisher: p, tx: changed, note: note, before: before, wanted: max(before.Expires, last.Expires)}
	tree, err := g.tree(ctx, s.whole)
	if err != nil {
		return nil, err
	}
	if note.Note.Version != before.PolicyVersion {
		detail := fmt.Sprintf("version %d, policy %s", note.Note.Version, note.Note.PolicyHash)
		if err := p.bundle.log(ctx, tx, policyPublished, "", detail); err != nil {
			return nil, err
		}
	}
	return p.seal(note, last.Version, p.bundle.lifetime(), tree, func(use func(bundle.Hash, []byte) error) error { return g.nodes(ctx, tree, use) })
}

// last is what the next version comes after, once the step has changed the keys.
func (p *Publisher) last(ctx context.Context, tx store.Tx, last store.LastSigned, s step) (_ store.LastSigned, err error) {
	if s.know == nil {
		s.know = p.compare
	}
	if err := s.know(ctx, tx, &last); err != nil {
		return last, err
	}
	if s.prepare != nil {
		err = s.prepare(tx, &last)
	}
	return last, err
}

// seal signs a manifest for a tree, as the version after last.
func (p *Publisher) seal(note *bundle.Publication, last int64, life time.Duration, tree bundle.Tree, nodes publish.Nodes) (*publish.Signed, error) {
	version, err := bundle.NextVersion(last, p.bundle.home.now())
	if err != nil {
		return nil, err
	}
	key, err := p.bundle.publisherFor(note.Note)
	if err != nil {
		return nil, err
	}
	notes, err := note.Manifest(tree, version, life, key)
	return &publish.Signed{
		Version: version, Expires: version + life.Milliseconds(), PolicyVersion: note.Note.Version,
		Notes: notes, Compiled: note.Compiled, Tree: tree, Nodes: nodes,
	}, err
}

// lastSigned is what the store remembers of s.
func lastSigned(s *publish.Signed) store.LastSigned {
	return store.LastSigned{
		Version: s.Version, PolicyVersion: s.PolicyVersion, PolicyNote: s.Notes.PolicyNote, Compiled: s.Compiled, Tree: s.Tree, Expires: s.Expires,
	}
}
