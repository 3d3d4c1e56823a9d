package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
)

// ErrStoreBehind says that the key store is an older one than that from which was
// published, or a new one: keys would cease to work, or work again.
var ErrStoreBehind = errors.New("the key store lacks what is published: `caddy keystile keys restore` takes that over, " +
	"and `caddy keystile bundle build --trust-store` publishes the store as it is")

// storeIsAhead says whether the store has signed other keys after those in opened,
// so far as it can be read.
func (p *Publisher) storeIsAhead(ctx context.Context, opened *bundle.Bundle) (ahead bool) {
	var unknown bundle.Hash
	err := p.bundle.view(ctx, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		ahead = last.Version > opened.Manifest.Version && last.Tree.Root != opened.Manifest.Root && last.Tree.Root != unknown
		return err
	})
	return ahead && err == nil
}

// compare refuses a store that lacks what is in force, and makes last come after
// it. In the usual case the store has published it, and nothing is compared. A
// store that knows more, after a crash, is as good.
func (p *Publisher) compare(ctx context.Context, tx store.Tx, last *store.LastSigned) error {
	return p.compareUntil(ctx, tx, last, p.latest())
}

// latest is until when edges accept what was signed.
func (p *Publisher) latest() time.Time { return p.bundle.home.now().Add(bundle.DefaultClockSkew) }

// compareUntil is compare for edges that accept what was signed until latest. A
// later version is a wrong clock's, or a thief's: it bars nothing.
func (p *Publisher) compareUntil(ctx context.Context, tx store.Tx, last *store.LastSigned, latest time.Time) error {
	w, err := p.openWitness()
	if w != nil {
		defer w.Close()
	}
	return p.compareWith(ctx, tx, last, latest, w, err)
}

// compareWith is compareUntil with a witness that was opened, or could not be.
func (p *Publisher) compareWith(ctx context.Context, tx store.Tx, last *store.LastSigned, latest time.Time, w *witness, unreadable error) error {
	if err := unreadable; err != nil {
		return fmt.Errorf("the key store cannot be held against what is published: %w: put the copy of an edge there, "+
			"or publish the store as it is with `caddy keystile bundle build --trust-store`", err)
	}
	if w == nil {
		return p.withoutWitness(last)
	}
	sameRoot := last.Tree.Root == w.manifest.Root
	if last.Version == w.manifest.Version && sameRoot {
		return nil
	}
	trust, err := p.bundle.before.trust()
	if err != nil {
		return err
	}
	opened, err := w.Verify(trust)
	switch {
	case err != nil && sameRoot:
		return nil // its signers were replaced by hand: edges do not count its version either
	case err != nil:
		return fmt.Errorf("what is published cannot be held against the key store: %w: %w", err, ErrStoreBehind)
	case !sameRoot:
		if err := lacks(ctx, tx, opened); err != nil {
			return fmt.Errorf("%s: %w", w.Path, err)
		}
	}
	follow(last, opened, w.Compiled, latest)
	return nil
}

// withoutWitness refuses a store that has published keys where there is no trace
// of that: the store may be as old a copy as the folder.
func (p *Publisher) withoutWitness(last *store.LastSigned) error {
	empty, err := bundle.Build(nil, func(bundle.Hash, []byte) error { return nil })
	if err != nil || last.Version == 0 || last.Tree.Root == empty.Root {
		return err
	}
	return fmt.Errorf("%s is gone, and only it shows that the key store is not an old copy: put the copy of an edge there, "+
		"or publish the store as it is with `caddy keystile bundle build --trust-store`", p.bundle.File())
}

// lacks says what b has and the store has not. No command changes anything of a
// key but its status and its end, and those in one direction.
func lacks(ctx context.Context, tx store.Tx, b *bundle.Bundle) error {
	known, err := byDigest(ctx, tx)
	if err != nil {
		return err
	}
	counts := make(map[string]int)
	first := ""
	if err := b.Walk(func(r *bundle.Record) error {
		if what := shortfall(known[r.Digest], r); what != "" {
			counts[what]++
			first = cmp.Or(first, r.KeyID)
		}
		return nil
	}); err != nil || first == "" {
		return err
	}
	var all []string
	for _, what := range shortfalls {
		if counts[what] > 0 {
			all = append(all, fmt.Sprintf("%d %s", counts[what], what))
		}
	}
	return fmt.Errorf("%s in the key store (%s is the first): %w", strings.Join(all, ", "), first, ErrStoreBehind)
}

// The ways in which a store is behind what is published.
const (
	missing       = "keys are missing"
	notRevoked    = "keys are not revoked"
	notDeprecated = "keys are not deprecated"
	endsLater     = "keys end later"
)

// shortfalls are all of them, as they are told.
var shortfalls = []string{missing, notRevoked, notDeprecated, endsLater}

// shortfall is how k, which is nil if there is none, is behind r; "" if it is not.
func shortfall(k *Key, r *bundle.Record) string {
	switch status, end := catchUp(k, r); {
	case k == nil || k.ID != r.KeyID:
		return missing
	case r.Status == bundle.Revoked && status != nil:
		return notRevoked
	case status != nil:
		return notDeprecated
	case end != nil:
		return endsLater
	}
	return ""
}

// byDigest are the store's keys by their digest.
func byDigest(ctx context.Context, tx store.Tx) (map[credential.Digest]*Key, error) {
	known := make(map[credential.Digest]*Key)
	return known, tx.Each(ctx, func(k *Key) error {
		known[k.Digest] = k
		return nil
	})
}

// catchUp says what k has to become so that it is no more than r: a later status,
// an earlier end. What stays is nil.
func catchUp(k *Key, r *bundle.Record) (status *string, end *time.Time) {
	if k == nil {
		return nil, nil
	}
	if own, err := bundle.ParseStatus(k.Status); err != nil || own < r.Status {
		s := r.Status.String()
		status = &s
	}
	if e := timeOf(r.Expires); e != nil && (k.Expires == nil || k.Expires.After(*e)) {
		end = e
	}
	return status, end
}

// trustStore is compare that finds nothing wrong.
func (p *Publisher) trustStore(_ context.Context, _ store.Tx, last *store.LastSigned) error {
	w, err := p.openWitness()
	if w == nil || err != nil {
		return nil
	}
	defer w.Close()
	trust, err := p.bundle.before.trust()
	if err != nil {
		return err
	}
	if opened, err := w.Verify(trust); err == nil {
		follow(last, opened, w.Compiled, p.latest())
	}
	return nil
}

// canPublish says why nothing could be published from the store.
func (p *Publisher) canPublish(ctx context.Context) error {
	w, unreadable := p.openWitness()
	if w != nil {
		defer w.Close()
	}
	return p.bundle.view(ctx, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		if err != nil {
			return err
		}
		return p.compareWith(ctx, tx, &last, p.latest(), w, unreadable)
	})
}

// CheckStore says what is wrong with the key store, for a renewal that went on
// without it: it is gone, cannot be read, lacks what is in force, or has changes
// that are not published.
func (p *Publisher) CheckStore(ctx context.Context) error {
	// Opened before the store is read: what is published meanwhile is not what the
	// store lacks.
	w, unreadable := p.openWitness()
	if w != nil {
		defer w.Close()
	}
	return p.bundle.view(ctx, func(tx store.Tx) error {
		last, err := tx.LastSigned(ctx)
		if err != nil {
			return err
		}
		if unreadable != nil || w == nil {
			return unreadable
		}
		signed := last
		if err := p.compareWith(ctx, tx, &last, p.latest(), w, nil); err != nil {
			return err
		}
		var unknown bundle.Hash
		if signed.Tree.Root != unknown && signed.Tree.Root != w.manifest.Root {
			return errors.New("the key store has changes that are not published: `caddy keystile bundle build` publishes them")
		}
		return nil
	})
}
