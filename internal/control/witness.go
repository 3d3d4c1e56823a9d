package control

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
)

// witness is a published bundle. Edges may have it: so it shows what the store
// has to know.
type witness struct {
	*disk.Source
	manifest *bundle.Manifest // not verified
}

// witnessAt opens the bundle in a file or directory.
func witnessAt(path string) (*witness, error) {
	source, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	m, err := bundle.ParseManifest(source.Notes.Manifest)
	if err != nil {
		source.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &witness{source, m}, nil
}

// openWitness opens the later one of the packed file and the directory. It returns
// nil if there is neither.
func (p *Publisher) openWitness() (*witness, error) {
	w, err := witnessAt(p.bundle.File())
	if p.bundle.Directory != "" {
		dir, e := witnessAt(p.bundle.Directory)
		switch {
		case e != nil && disk.HoldsBundle(p.bundle.Directory):
			// What was published there may be later than the file: that it is damaged
			// is no leave to go on from an older copy of everything else. An empty
			// directory is one that is written next.
			if w != nil {
				w.Close()
			}
			return nil, fmt.Errorf("the directory that is published to cannot be read: %w", e)
		case e == nil && (w == nil || dir.manifest.Version > w.manifest.Version):
			if w != nil {
				w.Close()
			}
			return dir, nil
		case e == nil:
			dir.Close()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return w, err
}

// openInForce opens the witness as an edge does.
func (p *Publisher) openInForce() (*bundle.Bundle, *witness, error) {
	w, err := p.openWitness()
	if w == nil || err != nil {
		if err == nil {
			err = fmt.Errorf("%s is gone: put the copy of an edge there, or give `caddy keystile bundle build`", p.bundle.File())
		}
		return nil, nil, err
	}
	trust, err := p.bundle.Trust()
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	opened, err := w.Verify(trust)
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	return opened, w, nil
}

// follow makes what is signed next come after b, unless that is later than edges
// accept. Its nodes are wanted until it expires.
func follow(last *store.LastSigned, b *bundle.Bundle, compiled []byte, latest time.Time) {
	last.Expires = max(last.Expires, b.Manifest.Expires)
	if b.Manifest.Version <= latest.UnixMilli() {
		last.Version = max(last.Version, b.Manifest.Version)
	}
	if b.PolicyNote.Version > last.PolicyVersion {
		last.PolicyVersion, last.PolicyNote, last.Compiled = b.PolicyNote.Version, b.Notes.PolicyNote, compiled
	}
}
