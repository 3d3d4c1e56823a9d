package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keystile/keystile/caddymodule/disk"
	"github.com/keystile/keystile/caddymodule/internal/crash"
	"github.com/keystile/keystile/core/bundle"
)

// Build builds the bundle from the store and the policy as they are, signs it,
// and writes it out. It returns an error that wraps [ErrUnsigned] if the policy
// has changed and its signers are elsewhere.
func (b *Bundle) Build(ctx context.Context) error {
	return b.publish(ctx, func(Tx, *Published) error { return nil }, func(p *bundle.Publication) error {
		if !b.follows(p) {
			return ErrUnsigned
		}
		return nil
	})
}

// anyNote accepts whatever policy note is in force.
func anyNote(*bundle.Publication) error { return nil }

// change applies a change of keys and publishes the outcome.
func (b *Bundle) change(ctx context.Context, apply func(Tx) error) error {
	return b.publish(ctx, func(tx Tx, _ *Published) error { return apply(tx) }, anyNote)
}

// publish prepares a new version, publishes it and writes it out, under the
// bundle's lock. prepare may change keys, and what counts as published last; accept
// may refuse the policy note that the version would be under. The file is written
// after the commit: a crash between the two leaves an old file, which the next
// change or Build replaces, and never a file that the store does not know. A
// version is never signed twice.
func (b *Bundle) publish(ctx context.Context, prepare func(Tx, *Published) error, accept func(*bundle.Publication) error) error {
	var pack []byte
	var version int64
	err := b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		if err := prepare(tx, &last); err != nil {
			return err
		}
		publication, err := b.publication(last)
		if err == nil {
			err = accept(publication)
		}
		if err != nil {
			return err
		}
		var records []bundle.Record
		if err := tx.Each(func(k *Key) error {
			r, err := k.record()
			records = append(records, r)
			return err
		}); err != nil {
			return err
		}
		next, packed, err := b.sign(publication, last.Version, records)
		if err != nil {
			return err
		}
		pack, version = packed, next.Version
		crash.Point("signed")
		return tx.SetPublished(next)
	})
	if err != nil {
		return err
	}
	crash.Point("committed")
	if err := b.write(ctx, pack, version); err != nil {
		return err
	}
	return b.promote()
}

// write writes out the packed file of a committed version, unless a later one has
// been committed meanwhile: whoever did that writes it, and it has this change.
func (b *Bundle) write(ctx context.Context, pack []byte, version int64) error {
	return b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil || last.Version != version {
			return err
		}
		if err := disk.ReplaceBytes(b.File(), 0o644, pack); err != nil {
			return err
		}
		return b.writeDirectory()
	})
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
func (b *Bundle) sign(publication *bundle.Publication, last int64, records []bundle.Record) (next Published, pack []byte, err error) {
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
	return b.seal(publication, last, tree, &nodes)
}

// seal signs a manifest for a tree, as the version after last, and packs it.
func (b *Bundle) seal(publication *bundle.Publication, last int64, tree bundle.Tree, nodes *bundle.Nodes) (next Published, pack []byte, err error) {
	version, err := bundle.NextVersion(last, b.home.now())
	if err != nil {
		return next, nil, err
	}
	publisher, err := b.publisher(publication.Note)
	if err != nil {
		return next, nil, err
	}
	notes, err := publication.Manifest(tree, version, bundle.DefaultLife, publisher)
	if err != nil {
		return next, nil, err
	}
	var out bytes.Buffer
	err = bundle.WritePack(&out, notes, publication.Compiled, nodes)
	return publishedUnder(publication, version), out.Bytes(), err
}

func publishedUnder(p *bundle.Publication, version int64) Published {
	return Published{Version: version, PolicyVersion: p.Note.Version, PolicyNote: p.Notes.Policy, Compiled: p.Compiled}
}

// Renew signs the published root again, with the publisher's key and the file
// alone: a lost store is no outage.
func (b *Bundle) Renew(ctx context.Context) error {
	opened, source, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer source.Close()
	publication := &bundle.Publication{Notes: bundle.Notes{Policy: opened.Notes.Policy}, Compiled: source.Compiled, Note: &opened.Note}
	tree := bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}
	var pack []byte
	var version int64
	err = b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		var nodes bundle.Nodes
		if err := opened.Nodes(nodes.Add); err != nil {
			return err
		}
		next, packed, err := b.seal(publication, max(last.Version, opened.Manifest.Version), tree, &nodes)
		if err != nil {
			return err
		}
		pack, version = packed, next.Version
		return tx.SetPublished(next)
	})
	if err != nil {
		return err
	}
	return b.write(ctx, pack, version)
}

// Reset begins the bundle's versions anew, at this clock's time. It is for
// versions that were signed far in the future, by a clock that was wrong, and
// refuses where there are none. Edges whose clock was wrong too, and which have
// accepted such a version, remember it.
func (b *Bundle) Reset(ctx context.Context) error {
	return b.publish(ctx, func(_ Tx, last *Published) error {
		now := b.home.now()
		_, manifest := bundle.NextVersion(last.Version, now)
		_, policy := bundle.NextVersion(last.PolicyVersion, now)
		if manifest == nil && policy == nil {
			return errors.New("nothing to reset: the last version is not in this clock's future")
		}
		if policy != nil {
			*last = Published{}
		}
		last.Version = 0
		return nil
	}, anyNote)
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
