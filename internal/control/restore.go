package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/disk"
)

// ErrStoreBehind says that the key store is an older one than that from which was
// published, or a new one: keys would cease to work, or work again.
var ErrStoreBehind = errors.New("the key store lacks what is published: `caddy keystile keys restore` takes that over, " +
	"and `caddy keystile bundle build --trust-store` publishes the store as it is")

// witness is a published bundle. Edges may have it: so it shows what the store
// has to know.
type witness struct {
	*disk.Source
	manifest *bundle.Manifest // not verified
}

func openWitness(path string) (*witness, error) {
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

// witness opens what is in force: the later one of the packed file and the
// directory. It returns nil if there is neither.
func (b *Bundle) witness() (*witness, error) {
	w, err := openWitness(b.File())
	if b.Directory != "" {
		// Where the directory cannot be read it is as one that is written next.
		if dir, e := openWitness(b.Directory); e == nil && (w == nil || dir.manifest.Version > w.manifest.Version) {
			if w != nil {
				w.Close()
			}
			return dir, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return w, err
}

// later opens the later one of the packed file and the directory.
func (b *Bundle) later() (*bundle.Bundle, *witness, error) {
	w, err := b.witness()
	if w == nil || err != nil {
		if err == nil {
			err = fmt.Errorf("%s is gone: put the copy of an edge there, or give `caddy keystile bundle build`", b.File())
		}
		return nil, nil, err
	}
	trust, err := b.Trust()
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

// storeIsAhead says whether the store has signed other keys after those in opened,
// so far as it can be read.
func (b *Bundle) storeIsAhead(ctx context.Context, opened *bundle.Bundle) (ahead bool) {
	var unknown bundle.Hash
	err := b.view(ctx, func(tx Tx) error {
		last, err := tx.Published()
		ahead = last.Version > opened.Manifest.Version && last.Root != opened.Manifest.Root && last.Root != unknown
		return err
	})
	return ahead && err == nil
}

// compare refuses a store that lacks what is in force, and makes last come after
// it. In the usual case the store has published it, and nothing is compared. A
// store that knows more, after a crash, is as good.
func (b *Bundle) compare(tx Tx, last *LastSigned) error {
	return b.compareBy(tx, last, b.home.now().Add(bundle.DefaultClockSkew))
}

// compareBy is compare for edges that accept what was signed until latest. A later
// version is a wrong clock's, or a thief's: it bars nothing.
func (b *Bundle) compareBy(tx Tx, last *LastSigned, latest time.Time) error {
	w, err := b.witness()
	if err != nil {
		return fmt.Errorf("the key store cannot be held against what is published: %w: put the copy of an edge there, "+
			"or publish the store as it is with `caddy keystile bundle build --trust-store`", err)
	}
	if w == nil {
		return b.withoutWitness(last)
	}
	defer w.Close()
	sameRoot := last.Root == w.manifest.Root
	if last.Version == w.manifest.Version && sameRoot {
		return nil
	}
	trust, err := b.before.trust()
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
		if err := lacks(tx, opened); err != nil {
			return fmt.Errorf("%s: %w", w.Path, err)
		}
	}
	last.follow(opened, w.Compiled, latest)
	return nil
}

// withoutWitness refuses a store that has published keys where there is no trace
// of that: the store may be as old a copy as the folder.
func (b *Bundle) withoutWitness(last *LastSigned) error {
	empty, err := bundle.Build(nil, func(bundle.Hash, []byte) error { return nil })
	if err != nil || last.Version == 0 || last.Root == empty.Root {
		return err
	}
	return fmt.Errorf("%s is gone, and only it shows that the key store is not an old copy: put the copy of an edge there, "+
		"or publish the store as it is with `caddy keystile bundle build --trust-store`", b.File())
}

// follow makes what is signed next come after b, unless that is later than edges
// accept.
func (p *LastSigned) follow(b *bundle.Bundle, compiled []byte, latest time.Time) {
	if b.Manifest.Version <= latest.UnixMilli() {
		p.Version = max(p.Version, b.Manifest.Version)
	}
	if b.PolicyNote.Version > p.PolicyVersion {
		p.PolicyVersion, p.PolicyNote, p.Compiled = b.PolicyNote.Version, b.Notes.PolicyNote, compiled
	}
}

// lacks says what b has and the store has not. No command changes anything of a
// key but its status and its end, and those in one direction.
func lacks(tx Tx, b *bundle.Bundle) error {
	known, err := byDigest(tx)
	if err != nil {
		return err
	}
	counts := make(map[string]int)
	first := ""
	if err := b.Walk(func(r *bundle.Record) error {
		k := known[r.Digest]
		what := ""
		switch status, end := raise(k, r); {
		case k == nil || k.ID != r.KeyID:
			what = "keys are missing"
		case r.Status == bundle.Revoked && status != nil:
			what = "keys are not revoked"
		case status != nil:
			what = "keys are not deprecated"
		case end != nil:
			what = "keys end later"
		default:
			return nil
		}
		counts[what]++
		if first == "" {
			first = r.KeyID
		}
		return nil
	}); err != nil || first == "" {
		return err
	}
	var all []string
	for _, what := range []string{"keys are missing", "keys are not revoked", "keys are not deprecated", "keys end later"} {
		if counts[what] > 0 {
			all = append(all, fmt.Sprintf("%d %s", counts[what], what))
		}
	}
	return fmt.Errorf("%s in the key store (%s is the first): %w", strings.Join(all, ", "), first, ErrStoreBehind)
}

func byDigest(tx Tx) (map[credential.Digest]*Key, error) {
	known := make(map[credential.Digest]*Key)
	return known, tx.Each(func(k *Key) error {
		known[k.Digest] = k
		return nil
	})
}

// raise says what k has to become so that it is no more than r: a later status,
// an earlier end. What stays is nil.
func raise(k *Key, r *bundle.Record) (status *string, end *time.Time) {
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

func timeOf(unix int64) *time.Time {
	if unix == 0 {
		return nil
	}
	t := time.Unix(unix, 0).UTC()
	return &t
}

// Restored counts what [Bundle.Restore] has taken over.
type Restored struct {
	Keys    int `json:"keys"`    // that the store did not have
	Changed int `json:"changed"` // that it had as active, or with a later end
}

// Restore takes keys, revocations and ends over from what is in force into the
// store, which is made if it is gone, and publishes. With a path it also takes
// over what is in that file or directory, as an edge may have it. A bundle has no
// names, hints and times of creation, and no API keys of public kinds. It needs no
// policy: see [Home.Published].
func (b *Bundle) Restore(ctx context.Context, path string) (r Restored, err error) {
	err = b.publish(ctx, step{open: b.home.makeStore, know: func(tx Tx, last *LastSigned) error {
		sources, err := b.sources(path)
		for _, w := range sources {
			defer w.Close()
			if err == nil {
				err = b.takeOver(tx, last, w, &r)
			}
		}
		return err
	}})
	return r, err
}

// sources are the bundles to restore from.
func (b *Bundle) sources(path string) (out []*witness, err error) {
	if path != "" {
		w, err := openWitness(path)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	w, err := b.witness()
	switch {
	case err != nil && path != "": // it is replaced by what is in path
		return out, nil
	case w != nil:
		out = append(out, w)
	case err == nil && path == "":
		err = fmt.Errorf("%s is gone: name the copy of an edge", b.File())
	}
	return out, err
}

func (b *Bundle) takeOver(tx Tx, last *LastSigned, w *witness, count *Restored) error {
	trust, err := b.before.trust()
	if err != nil {
		return err
	}
	opened, err := w.Verify(trust)
	if err != nil {
		return err
	}
	known, err := byDigest(tx)
	if err != nil {
		return err
	}
	last.follow(opened, w.Compiled, b.home.now().Add(bundle.DefaultClockSkew))
	return opened.Walk(func(r *bundle.Record) error {
		k := known[r.Digest]
		if k == nil {
			if len(r.Limits) > 0 {
				return fmt.Errorf("key %s has limits, which the key store cannot hold", r.KeyID)
			}
			count.Keys++
			return tx.Insert(keyOf(r))
		}
		if k.ID != r.KeyID {
			return fmt.Errorf("key %s is called %s in the key store: it is of another bundle", r.KeyID, k.ID)
		}
		status, end := raise(k, r)
		if status == nil && end == nil {
			return nil
		}
		if status == nil {
			status = &k.Status
		}
		count.Changed++
		return tx.SetStatus(k.ID, *status, end, nil)
	})
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

// trustStore is compare that finds nothing wrong.
func (b *Bundle) trustStore(_ Tx, last *LastSigned) error {
	w, err := b.witness()
	if w == nil || err != nil {
		return nil
	}
	defer w.Close()
	trust, err := b.before.trust()
	if err != nil {
		return err
	}
	if opened, err := w.Verify(trust); err == nil {
		last.follow(opened, w.Compiled, b.home.now().Add(bundle.DefaultClockSkew))
	}
	return nil
}

// canPublish says why nothing could be published from the store.
func (b *Bundle) canPublish(ctx context.Context) error {
	return b.view(ctx, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		return b.compare(tx, &last)
	})
}

// CheckStore says what is wrong with the key store, for a renewal that went on
// without it: it is gone, cannot be read, lacks what is in force, or has changes
// that are not published.
func (b *Bundle) CheckStore(ctx context.Context) error {
	return b.view(ctx, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		w, err := b.witness()
		if err != nil || w == nil {
			return err
		}
		defer w.Close()
		signed := last
		if err := b.compare(tx, &last); err != nil {
			return err
		}
		var unknown bundle.Hash
		if signed.Root != unknown && signed.Root != w.manifest.Root {
			return errors.New("the key store has changes that are not published: `caddy keystile bundle build` publishes them")
		}
		return nil
	})
}
