package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
)

// Restored counts what [Keyring.Restore] has taken over.
type Restored struct {
	Keys    int `json:"keys"`    // that the store did not have
	Changed int `json:"changed"` // that it had as active, or with a later end
}

// Restore takes keys, revocations and ends over from what is in force into the
// store, which is made if it is gone, and publishes. With a path it also takes
// over what is in that file or directory, as an edge may have it. A bundle has no
// names, hints and times of creation, and no API keys of public kinds. It needs no
// policy: see [Home.OpenWithoutPolicy].
func (r *Keyring) Restore(ctx context.Context, path string) (count Restored, err error) {
	publisher := r.bundle.Publisher()
	err = publisher.publish(ctx, step{open: r.bundle.home.makeStore, whole: true, know: func(ctx context.Context, tx store.Tx, last *store.LastSigned) error {
		sources, err := publisher.witnesses(path)
		for _, w := range sources {
			defer w.Close()
		}
		if err != nil {
			return err
		}
		return r.takeOverAll(ctx, tx, last, sources, &count)
	}})
	return count, err
}

// takeOverAll makes the store know what the bundles have, that under the latest policy
// note first: it says whose bundles count.
func (r *Keyring) takeOverAll(ctx context.Context, tx store.Tx, last *store.LastSigned, sources []*witness, count *Restored) error {
	trust, err := r.bundle.before.trust()
	if err != nil {
		return err
	}
	var all []*bundle.Bundle
	compiled := make(map[*bundle.Bundle][]byte)
	for _, w := range sources {
		opened, err := w.Verify(trust)
		if err != nil {
			return err
		}
		all, compiled[opened] = append(all, opened), w.Compiled
	}
	slices.SortStableFunc(all, func(a, b *bundle.Bundle) int { return cmp.Compare(b.PolicyNote.Version, a.PolicyNote.Version) })
	for _, opened := range all {
		if err := checkPublisher(trust, last, opened); err != nil {
			return err
		}
		follow(last, opened, compiled[opened], r.bundle.Publisher().latest())
		if err := r.takeOver(ctx, tx, opened, count); err != nil {
			return err
		}
	}
	return nil
}

// checkPublisher refuses a bundle that none has signed who is still a publisher: what
// was signed with a stolen key counts for nothing once a policy note does not list it.
func checkPublisher(trust *bundle.Trust, last *store.LastSigned, opened *bundle.Bundle) error {
	if last.PolicyVersion <= opened.PolicyNote.Version {
		return nil
	}
	listed, err := trust.Lists(last.PolicyNote, &opened.Mark)
	if err != nil || listed {
		return err
	}
	return fmt.Errorf("the bundle of version %d was signed by a publisher that the policy note in force does not list any more: "+
		"it may be a thief's, and nothing of it is taken over", opened.Manifest.Version)
}

// witnesses are the bundles to restore from.
func (p *Publisher) witnesses(path string) (all []*witness, err error) {
	if path != "" {
		w, err := witnessAt(path)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	w, err := p.openWitness()
	switch {
	case err != nil && path != "": // it is replaced by what is in path
		return all, nil
	case w != nil:
		all = append(all, w)
	case err == nil && path == "":
		err = fmt.Errorf("%s is gone: name the copy of an edge", p.bundle.File())
	}
	return all, err
}

// takeOver makes the store know what a bundle has.
func (r *Keyring) takeOver(ctx context.Context, tx store.Tx, opened *bundle.Bundle, count *Restored) error {
	known, err := byDigest(ctx, tx)
	if err != nil {
		return err
	}
	return opened.Walk(func(rec *bundle.Record) error { return r.bundle.takeOverKey(ctx, tx, known[rec.Digest], rec, count) })
}

// takeOverKey makes k, the store's key or nil, what r says of it.
func (b *Bundle) takeOverKey(ctx context.Context, tx store.Tx, k *Key, r *bundle.Record, count *Restored) error {
	if k == nil {
		if len(r.Limits) > 0 {
			return fmt.Errorf("key %s has limits, which the key store cannot hold", r.KeyID)
		}
		count.Keys++
		k := keyOf(r)
		if err := tx.Insert(ctx, k); err != nil {
			return err
		}
		return b.log(ctx, tx, keyRestored, k.ID, rights(k)+", "+k.Status)
	}
	if k.ID != r.KeyID {
		return fmt.Errorf("key %s is called %s in the key store: it is of another bundle", r.KeyID, k.ID)
	}
	status, end := catchUp(k, r)
	if status == nil && end == nil {
		return nil
	}
	if status == nil {
		status = &k.Status
	}
	count.Changed++
	if err := tx.SetStatus(ctx, k.ID, *status, end, nil); err != nil {
		return err
	}
	detail := *status
	if end != nil {
		detail += ", until " + end.Format(time.RFC3339)
	}
	return b.log(ctx, tx, keyRestored, k.ID, detail)
}

// keyOf is what a bundle tells of a key.
func keyOf(r *bundle.Record) *Key {
	k := &Key{
		ID: r.KeyID, Kind: r.Kind, Environment: r.Environment, Tenant: r.Tenant, Scopes: r.Scopes,
		Status: r.Status.String(), Digest: r.Digest, NotBefore: timeOf(r.NotBefore), Expires: timeOf(r.Expires),
		Referrers: r.Referrers, Endpoints: r.Endpoints,
	}
	for _, p := range r.Prefixes {
		k.IPs = append(k.IPs, p.String())
	}
	return k
}

func timeOf(unix int64) *time.Time {
	if unix == 0 {
		return nil
	}
	t := time.Unix(unix, 0).UTC()
	return &t
}
