package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
)

// ErrUnsigned says that the policy, or who may publish, has changed, and that
// this home cannot sign that itself. Keys are published under the policy in force
// meanwhile.
var ErrUnsigned = errors.New("the policy note has changed and its signers are elsewhere: " +
	"`policy note` writes what they have to sign with `policy sign`, and `bundle build --note` takes it over")

// nextPublication is the policy note for what is published next: the one in force;
// a new one, if the policy or the publisher has changed and this home can sign it.
func (p *Publisher) nextPublication(last store.LastSigned) (*bundle.Publication, error) {
	trust, err := p.bundle.Trust()
	if err != nil {
		return nil, err
	}
	var inForce *bundle.Publication
	if last.PolicyNote != nil {
		// A note that no longer verifies, since its signer was replaced, counts as
		// absent.
		inForce, _ = bundle.Republish(last.PolicyNote, last.Compiled, trust)
	}
	if inForce != nil && (p.bundle.Policy == nil || p.isFor(inForce)) {
		return inForce, nil
	}
	signer, err := p.bundle.policySigner()
	if err != nil {
		return nil, err
	}
	if signer != nil && p.bundle.Policy != nil {
		n, err := p.nextNote(last)
		if err != nil {
			return nil, err
		}
		return bundle.Publish(p.bundle.Policy, n.Name, n.Audience, n.Version, n.Publishers, signer)
	}
	if inForce == nil {
		return nil, ErrUnsigned
	}
	return inForce, nil
}

// isFor says whether a policy note is for the policy and the publisher as they are
// now.
func (p *Publisher) isFor(note *bundle.Publication) bool {
	keys, err := p.bundle.publisherKeys()
	return err == nil && bundle.HashOf(p.bundle.Policy.Encode()) == note.Note.PolicyHash && slices.Contains(note.Note.Publishers, keys[0].Verifier)
}

// nextNote is the policy note after last.
func (p *Publisher) nextNote(last store.LastSigned) (*bundle.PolicyNote, error) {
	keys, err := p.bundle.publisherKeys()
	if err != nil {
		return nil, err
	}
	version, err := bundle.NextVersion(last.PolicyVersion, p.bundle.home.now())
	if err != nil {
		return nil, err
	}
	b := p.bundle
	return bundle.NewPolicyNote(b.Policy, b.Name, b.Audience, version, []string{keys[0].Verifier}), nil
}

// Draft returns the text that the policy signers have to sign so that the policy
// as it is now comes into force.
func (p *Publisher) Draft(ctx context.Context) (text []byte, err error) {
	err = p.bundle.view(ctx, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		if err != nil {
			return err
		}
		n, err := p.nextNote(last)
		if err == nil {
			text = n.Text()
		}
		return err
	})
	return text, err
}

// Adopt puts a policy note in force that signers elsewhere have signed, and
// publishes under it. Several notes are one text with the signatures of several
// signers.
func (p *Publisher) Adopt(ctx context.Context, signed ...[]byte) error {
	note, err := p.merge(signed)
	if err != nil {
		return err
	}
	return p.publish(ctx, step{prepare: func(_ store.Tx, last *store.LastSigned) error {
		if note.Note.Version <= last.PolicyVersion {
			return fmt.Errorf("the note has version %d, and %d is in force: write it anew with `policy note`", note.Note.Version, last.PolicyVersion)
		}
		*last = store.LastSigned{
			Version: last.Version, PolicyVersion: note.Note.Version, PolicyNote: note.Notes.PolicyNote, Compiled: note.Compiled,
		}
		return nil
	}})
}

// merge makes one policy note of what several signers have signed, and refuses one
// that is not for the bundle as it is now.
func (p *Publisher) merge(signed [][]byte) (*bundle.Publication, error) {
	merged, err := bundle.MergeNotes(signed...)
	if err != nil {
		return nil, err
	}
	trust, err := p.bundle.Trust()
	if err != nil {
		return nil, err
	}
	note, err := bundle.Republish(merged, p.bundle.Policy.Encode(), trust)
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	if !p.isFor(note) {
		return nil, fmt.Errorf("the note lists the publishers %q and not the one of this bundle: write it anew with `policy note`", note.Note.Publishers)
	}
	return note, nil
}
