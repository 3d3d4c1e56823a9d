package control

import (
	"context"
	"fmt"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
)

// Key is one key as the store keeps it.
type Key = store.Key

// Keyring is the keys of a bundle. Whatever changes one publishes the outcome.
type Keyring struct{ bundle *Bundle }

// statuses that the store keeps.
var (
	active     = bundle.Active.String()
	deprecated = bundle.Deprecated.String()
	revoked    = bundle.Revoked.String()
)

// statusExpired is what [Keyring.List] says of a key past its end.
const statusExpired = "expired"

// Create makes a key and publishes it. The API key is returned once and kept
// nowhere, unless its kind is public.
func (r *Keyring) Create(ctx context.Context, n NewKey) (*Key, credential.Secret, error) {
	k, secret, err := r.newKey(n)
	if err == nil {
		err = mistaken(r.bundle.Policy, k)
	}
	if err != nil {
		return nil, credential.Secret{}, err
	}
	err = r.bundle.Publisher().change(ctx, func(tx store.Tx) error {
		if err := tx.Insert(ctx, k); err != nil {
			return err
		}
		return r.bundle.log(ctx, tx, keyCreated, k.ID, rights(k))
	})
	return k, secret, err
}

// List returns all keys, oldest first.
func (r *Keyring) List(ctx context.Context) (keys []*Key, err error) {
	err = r.bundle.view(ctx, func(tx store.Tx) error {
		return tx.Each(ctx, func(k *Key) error {
			r.describe(k)
			keys = append(keys, k)
			return nil
		})
	})
	return keys, err
}

// Show returns one key.
func (r *Keyring) Show(ctx context.Context, id string) (*Key, error) {
	return r.one(ctx, func(tx store.Tx) (*Key, error) { return tx.Get(ctx, id) })
}

// Find returns the key whose API key a text is, or an error that wraps
// [store.ErrNotFound].
func (r *Keyring) Find(ctx context.Context, apiKey string) (*Key, error) {
	return r.one(ctx, func(tx store.Tx) (*Key, error) { return tx.Find(ctx, credential.DigestOf(apiKey)) })
}

// one is the key that get reads.
func (r *Keyring) one(ctx context.Context, get func(store.Tx) (*Key, error)) (k *Key, err error) {
	err = r.bundle.view(ctx, func(tx store.Tx) error {
		k, err = get(tx)
		return err
	})
	if err == nil {
		r.describe(k)
	}
	return k, err
}

// describe fills in what follows from time.
func (r *Keyring) describe(k *Key) {
	now := r.bundle.home.now()
	if k.Status != revoked && k.Expires != nil && !now.Before(*k.Expires) {
		k.Status = statusExpired
	}
	if r.bundle.Policy == nil {
		return
	}
	rotate := r.bundle.Policy.Grants.Rotate // due, too, where nobody knows the key's age
	k.Rotate = rotate > 0 && k.Status == active && now.Sub(k.Created) >= rotate
}

// Roll is what a caller asks for of a key that takes the place of another.
type Roll struct {
	// End is a hard end of the old key, which else works until it is revoked, or until
	// an end that it has.
	End *time.Time
	// Expires is the end of the new key, which else is that of the old one.
	Expires *time.Time
}

// Rolled is a key that takes the place of Old.
type Rolled struct {
	*Key
	Secret credential.Secret
	Old    *Key
}

// Roll makes a key like another one, which goes on working and is marked as
// deprecated; with a hard end it also expires then.
func (r *Keyring) Roll(ctx context.Context, id string, roll Roll) (rolled Rolled, err error) {
	if roll.End != nil && !roll.End.After(r.bundle.home.now()) {
		return rolled, errEnded
	}
	err = r.bundle.Publisher().change(ctx, func(tx store.Tx) error {
		old, err := tx.Get(ctx, id)
		if err != nil {
			return err
		}
		r.describe(old)
		if old.Status == revoked || old.Status == statusExpired {
			return fmt.Errorf("key %s is %s and cannot be rolled: create a new one", id, old.Status)
		}
		expires := old.Expires
		if roll.Expires != nil {
			expires = roll.Expires
		}
		k, secret, err := r.newKey(NewKey{
			Name: old.Name, Kind: old.Kind, Environment: old.Environment, Tenant: old.Tenant, Scopes: old.Scopes,
			NotBefore: old.NotBefore, Expires: expires, IPs: old.IPs, Referrers: old.Referrers, Endpoints: old.Endpoints,
		})
		if err != nil {
			return err
		}
		k.Replaces = old.ID
		if err := tx.Insert(ctx, k); err != nil {
			return err
		}
		old.Status = deprecated
		var end *time.Time // of the old key, if it changes: never to a later one
		if roll.End != nil && (old.Expires == nil || roll.End.Before(*old.Expires)) {
			end, old.Expires = roll.End, roll.End
		}
		if err := tx.SetStatus(ctx, old.ID, deprecated, end, nil); err != nil {
			return err
		}
		rolled = Rolled{k, secret, old}
		if err := r.bundle.log(ctx, tx, keyCreated, k.ID, rights(k)); err != nil {
			return err
		}
		return r.bundle.log(ctx, tx, keyRolled, old.ID, ends(k.ID, old.Expires))
	})
	return rolled, err
}

// Revoke ends a key at once and for ever. Revoking twice is no error. It needs no
// policy: see [Home.OpenWithoutPolicy].
func (r *Keyring) Revoke(ctx context.Context, id string) (*Key, error) {
	var k *Key
	err := r.bundle.Publisher().change(ctx, func(tx store.Tx) (err error) {
		if k, err = tx.Get(ctx, id); err != nil || k.Status == revoked {
			return err
		}
		now := r.bundle.home.now().UTC().Truncate(time.Second)
		k.Status, k.Revoked = revoked, &now
		if err := tx.SetStatus(ctx, id, revoked, nil, &now); err != nil {
			return err
		}
		return r.bundle.log(ctx, tx, keyRevoked, id, "")
	})
	return k, err
}
