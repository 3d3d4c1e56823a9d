package control

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/keystile/keystile/core/bundle"
)

// Build builds the bundle from the store and the policy as they are, signs it,
// and writes it out.
func (b *Bundle) Build(ctx context.Context) error {
	return b.change(ctx, func(Tx) error { return nil })
}

// change applies a change of keys and publishes the outcome, under the bundle's
// lock. The file is written after the commit: a crash between the two leaves an
// old file, which the next change or Build replaces, and never a file that the
// store does not know. A version is never signed twice.
func (b *Bundle) change(ctx context.Context, apply func(Tx) error) error {
	var pack []byte
	var version int64
	err := b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		if err := apply(tx); err != nil {
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
		var err error
		pack, version, err = b.sign(tx, records)
		return err
	})
	if err != nil {
		return err
	}
	return b.write(ctx, pack, version)
}

// write writes the packed file of a committed version, unless a later one has
// been committed meanwhile: whoever did that writes it, and it has this change.
func (b *Bundle) write(ctx context.Context, pack []byte, version int64) error {
	return b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil || last.Version != version {
			return err
		}
		return writeFile(b.File(), pack)
	})
}

func (b *Bundle) sign(tx Tx, records []bundle.Record) (packed []byte, version int64, err error) {
	last, err := tx.Published()
	if err != nil {
		return nil, 0, err
	}
	version, err = bundle.NextVersion(last.Version, b.home.now())
	if err != nil {
		return nil, 0, err
	}
	publisher, err := b.signer(publisherFile)
	if err != nil {
		return nil, 0, err
	}
	publication, err := b.publication(last, version)
	if err != nil {
		return nil, 0, err
	}
	var nodes bundle.Nodes
	tree, err := bundle.Build(records, nodes.Add)
	if err != nil {
		return nil, 0, err
	}
	notes, err := publication.Manifest(tree, version, bundle.DefaultLife, publisher)
	if err != nil {
		return nil, 0, err
	}
	var pack bytes.Buffer
	if err := bundle.WritePack(&pack, notes, publication.Compiled, &nodes); err != nil {
		return nil, 0, err
	}
	return pack.Bytes(), version, tx.SetPublished(Published{
		Version: version, PolicyVersion: publication.Note.Version,
		PolicyNote: publication.Notes.Policy, PolicyHash: publication.Note.Policy.String(),
	})
}

// publication is the policy note that is in force, or a new one if the policy
// or its audience has changed since.
func (b *Bundle) publication(last Published, version int64) (*bundle.Publication, error) {
	compiled := b.Policy.Encode()
	if last.PolicyHash == bundle.HashOf(compiled).String() {
		trust, err := b.Trust()
		if err != nil {
			return nil, err
		}
		if p, err := bundle.Republish(last.PolicyNote, compiled, trust); err == nil && p.Note.Publishers[0] == b.Publisher {
			return p, nil
		}
	}
	signer, err := b.signer(signerFile)
	if err != nil {
		return nil, err
	}
	policyVersion, err := bundle.NextVersion(last.PolicyVersion, b.home.now())
	if err != nil {
		return nil, err
	}
	return bundle.Publish(b.Policy, b.Name, b.Audience, policyVersion, []string{b.Publisher}, signer)
}

// Renew signs the published root again, with the publisher's key and the file
// alone: a lost store is no outage.
func (b *Bundle) Renew(ctx context.Context) error {
	opened, pack, close, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer close()
	publisher, err := b.signer(publisherFile)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	var version int64
	err = b.home.store.Update(ctx, b.Name, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		if version, err = bundle.NextVersion(max(last.Version, opened.Manifest.Version), b.home.now()); err != nil {
			return err
		}
		publication := &bundle.Publication{Notes: bundle.Notes{Policy: opened.Notes.Policy}, Compiled: pack.Compiled, Note: &opened.Note}
		notes, err := publication.Manifest(bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}, version, bundle.DefaultLife, publisher)
		if err != nil {
			return err
		}
		var nodes bundle.Nodes
		if err := opened.Nodes(nodes.Add); err != nil {
			return err
		}
		if err := bundle.WritePack(&out, notes, pack.Compiled, &nodes); err != nil {
			return err
		}
		return tx.SetPublished(Published{
			Version: version, PolicyVersion: opened.Note.Version,
			PolicyNote: opened.Notes.Policy, PolicyHash: opened.Note.Policy.String(),
		})
	})
	if err != nil {
		return err
	}
	return b.write(ctx, out.Bytes(), version)
}

// OpenFile opens the published file as an edge does.
func (b *Bundle) OpenFile() (*bundle.Bundle, *bundle.Pack, func() error, error) {
	trust, err := b.Trust()
	if err != nil {
		return nil, nil, nil, err
	}
	return OpenFile(b.File(), trust)
}

// OpenFile opens a packed file as an edge that trusts trust. The returned
// function closes it.
func OpenFile(path string, trust *bundle.Trust) (*bundle.Bundle, *bundle.Pack, func() error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, nil, err
	}
	pack, err := bundle.OpenPack(f, info.Size())
	if err != nil {
		f.Close()
		return nil, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	opened, err := bundle.Open(pack.Notes, pack.Compiled, pack, trust)
	if err != nil {
		f.Close()
		return nil, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return opened, pack, f.Close, nil
}
