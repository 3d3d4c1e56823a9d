package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/crash"
	"github.com/keystile/keystile/internal/disk"
)

// Build builds the bundle from the store and the policy as they are, signs it,
// and writes it out. It returns an error that wraps [ErrUnsigned] if the policy
// has changed and its signers are elsewhere, and one that wraps [ErrStoreBehind]
// if the store lacks what is in force.
func (b *Bundle) Build(ctx context.Context) error { return b.publish(ctx, step{accept: b.onlyNew}) }

// BuildTrusting is Build from a store that is right although it lacks what is in
// force, or although nobody can tell.
func (b *Bundle) BuildTrusting(ctx context.Context) error {
	return b.publish(ctx, step{know: b.trustStore, open: b.home.makeStore, accept: b.onlyNew})
}

// onlyNew refuses a policy note that is not for the policy as it is.
func (b *Bundle) onlyNew(p *bundle.Publication) error {
	if !b.follows(p) {
		return ErrUnsigned
	}
	return nil
}

// change applies a change of keys and publishes the outcome.
func (b *Bundle) change(ctx context.Context, apply func(Tx) error) error {
	return b.publish(ctx, step{prepare: func(tx Tx, _ *LastSigned) error { return apply(tx) }})
}

// step is one publication.
type step struct {
	// open opens the store; nil is one that has to be there.
	open func() (Store, error)
	// know holds the store against what is in force, and takes over what has to
	// be lower than the next version; nil is [Bundle.compare].
	know func(Tx, *LastSigned) error
	// prepare changes keys, or what counts as published last; may be nil.
	prepare func(Tx, *LastSigned) error
	// accept may refuse the policy note that the version would be under.
	accept func(*bundle.Publication) error
}

// publish signs a new version and writes it out, under the bundle's lock. The
// file is written beside its place before the commit, so that a full disk changes
// nothing, and put there after it: a crash between the two leaves an old file,
// which the next change or Build replaces, and never a file that the store does
// not know. A version is never signed twice.
func (b *Bundle) publish(ctx context.Context, s step) error {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return b.publishLocked(ctx, s)
}

func (b *Bundle) publishLocked(ctx context.Context, s step) error {
	if s.open == nil {
		s.open = b.home.store
	}
	store, err := s.open()
	if err != nil {
		return err
	}
	var staged *disk.Staged
	err = store.Update(ctx, b.Name, func(tx Tx) error {
		next, pack, err := b.next(tx, s)
		if err != nil {
			return err
		}
		crash.Point("signed")
		if staged, err = disk.Stage(b.File(), 0o644, pack); err != nil {
			return err
		}
		return tx.SetPublished(next)
	})
	if staged != nil {
		defer staged.Discard()
	}
	if err != nil {
		return err
	}
	crash.Point("committed")
	if err := b.place(staged); err != nil {
		return fmt.Errorf("the change is in the key store, and not everywhere where it is published: mend that, and give `caddy keystile bundle build`: %w", err)
	}
	return b.promote()
}

// next makes the version after the last one.
func (b *Bundle) next(tx Tx, s step) (next LastSigned, pack func(io.Writer) error, err error) {
	last, err := tx.Published()
	if err != nil {
		return next, nil, err
	}
	if s.know == nil {
		s.know = b.compare
	}
	if err := s.know(tx, &last); err != nil {
		return next, nil, err
	}
	if s.prepare != nil {
		if err := s.prepare(tx, &last); err != nil {
			return next, nil, err
		}
	}
	publication, err := b.publication(last)
	if err == nil && s.accept != nil {
		err = s.accept(publication)
	}
	if err != nil {
		return next, nil, err
	}
	var records []bundle.Record
	if err := tx.Each(func(k *Key) error {
		r, err := k.record()
		records = append(records, r)
		return err
	}); err != nil {
		return next, nil, err
	}
	return b.sign(publication, last.Version, records)
}

// place puts the packed file of a committed version in its place, and the
// directory after it.
func (b *Bundle) place(staged *disk.Staged) error {
	if err := staged.Place(); err != nil {
		return err
	}
	return b.writeDirectory()
}

func (b *Bundle) writeDirectory() error {
	if b.Directory == "" {
		return nil
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer source.Close()
	_, err = disk.WriteDir(b.Directory, opened, source.Compiled)
	return err
}

// sign signs records, under publication, as the version after last.
func (b *Bundle) sign(publication *bundle.Publication, last int64, records []bundle.Record) (next LastSigned, pack func(io.Writer) error, err error) {
	for i := range records {
		if r := &records[i]; !slices.Contains(publication.Note.Kinds, r.Kind) || !slices.Contains(publication.Note.Environments, r.Environment) {
			return next, nil, fmt.Errorf("key %s: kind %q in environment %q is not in the policy note in force: edges would refuse it", r.KeyID, r.Kind, r.Environment)
		}
	}
	var nodes bundle.Nodes
	tree, err := bundle.Build(records, nodes.Add)
	if err != nil {
		return next, nil, err
	}
	return b.seal(publication, last, b.life(), tree, &nodes)
}

// seal signs a manifest for a tree, as the version after last, and packs it.
func (b *Bundle) seal(publication *bundle.Publication, last int64, life time.Duration, tree bundle.Tree, nodes *bundle.Nodes) (next LastSigned, pack func(io.Writer) error, err error) {
	version, err := bundle.NextVersion(last, b.home.now())
	if err != nil {
		return next, nil, err
	}
	publisher, err := b.publisher(publication.Note)
	if err != nil {
		return next, nil, err
	}
	notes, err := publication.Manifest(tree, version, life, publisher)
	next = publishedUnder(publication, version)
	next.Root = tree.Root
	return next, func(w io.Writer) error { return bundle.WritePack(w, notes, publication.Compiled, nodes) }, err
}

func publishedUnder(p *bundle.Publication, version int64) LastSigned {
	return LastSigned{Version: version, PolicyVersion: p.Note.Version, PolicyNote: p.Notes.PolicyNote, Compiled: p.Compiled}
}

// Renew signs the published root again, with the publisher's key and what is
// published alone: a store that is lost or broken is no outage. The store does not
// learn of it; what it publishes next comes after the renewed version. But if the
// store can be read and has changes that are not published, they are: what is
// there may be an older copy, and signed again it would let revoked keys pass. The
// bundle keeps its life unless another is given.
func (b *Bundle) Renew(ctx context.Context, life Life) error {
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	opened, source, err := b.later()
	if err != nil {
		return err
	}
	defer source.Close()
	if life != 0 {
		b.Life = life
	}
	if b.storeIsAhead(ctx, opened) {
		return b.publishLocked(ctx, step{})
	}
	var nodes bundle.Nodes
	if err := opened.Nodes(nodes.Add); err != nil {
		return err
	}
	publication := &bundle.Publication{Notes: bundle.Notes{PolicyNote: opened.Notes.PolicyNote}, Compiled: source.Compiled, Note: &opened.PolicyNote}
	tree := bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}
	if life == 0 {
		life = Life(opened.Life())
	}
	_, pack, err := b.seal(publication, opened.Manifest.Version, time.Duration(life), tree, &nodes)
	if err != nil {
		return err
	}
	crash.Point("signed")
	staged, err := disk.Stage(b.File(), 0o644, pack)
	if err != nil {
		return err
	}
	defer staged.Discard()
	return b.place(staged)
}

// Reset begins the bundle's versions anew, at this clock's time. It is for
// versions that were signed far in the future, by a clock that was wrong, and
// refuses where there are none. Edges whose clock was wrong too, and which have
// accepted such a version, remember it.
func (b *Bundle) Reset(ctx context.Context) error {
	// Here the published version counts, however far ahead a renewal has signed it.
	know := func(tx Tx, last *LastSigned) error { return b.compareBy(tx, last, time.UnixMilli(math.MaxInt64)) }
	return b.publish(ctx, step{know: know, prepare: func(_ Tx, last *LastSigned) error {
		now := b.home.now()
		_, manifest := bundle.NextVersion(last.Version, now)
		_, policy := bundle.NextVersion(last.PolicyVersion, now)
		if manifest == nil && policy == nil {
			return errors.New("nothing to reset: the last version is not in this clock's future")
		}
		if policy != nil {
			*last = LastSigned{}
		}
		last.Version = 0
		return nil
	}})
}

// OpenFile opens the published file as an edge does. The source has to be
// closed.
func (b *Bundle) OpenFile() (*bundle.Bundle, *disk.Source, error) {
	trust, err := b.Trust()
	if err != nil {
		return nil, nil, err
	}
	return disk.OpenBundle(b.File(), trust)
}
