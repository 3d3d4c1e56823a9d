// Package publish takes a bundle that was just signed to where it is published:
// the packed file, and the directory that a web server serves.
package publish

import (
	"context"

	"github.com/keystile/keystile/core/bundle"
)

// Nodes calls use with every node of a key tree, in tree order.
type Nodes func(use func(bundle.Hash, []byte) error) error

// Signed is a version of a bundle as it was just signed.
type Signed struct {
	Version       int64 // of the manifest
	PolicyVersion int64 // of the policy note
	Notes         bundle.Notes
	Compiled      []byte // the policy
	Tree          bundle.Tree
	Expires       int64 // in Unix milliseconds
	Nodes         Nodes
}

// Sink is a place where bundles are published.
type Sink interface {
	// Stage makes ready what can be made ready of s while nobody sees it: a full
	// disk is met while nothing has changed.
	Stage(ctx context.Context, s *Signed) (Staged, error)
}

// Staged is a bundle that a sink has made ready. It ends with Place or Discard.
type Staged interface {
	// Place publishes it.
	Place(ctx context.Context) error
	// Discard removes what was made ready, unless it is in its place.
	Discard()
}

// Sinks are several as one, each of them after the one before.
type Sinks []Sink

// Stage implements [Sink]. If one cannot, nothing is left of any.
func (all Sinks) Stage(ctx context.Context, s *Signed) (Staged, error) {
	var ready several
	for _, sink := range all {
		staged, err := sink.Stage(ctx, s)
		if err != nil {
			ready.Discard()
			return nil, err
		}
		ready = append(ready, staged)
	}
	return ready, nil
}

type several []Staged

func (all several) Place(ctx context.Context) error {
	for _, staged := range all {
		if err := staged.Place(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (all several) Discard() {
	for _, staged := range all {
		staged.Discard()
	}
}
