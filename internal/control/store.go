package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
)

// Key is one key as the control plane keeps it. It holds no API key, except of
// kinds that are public.
type Key struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Kind        string            `json:"kind"`
	Environment string            `json:"environment"`
	Tenant      string            `json:"tenant,omitempty"`
	Scopes      []string          `json:"scopes,omitempty"`
	Status      string            `json:"status"` // active, deprecated, revoked; List also says expired
	Hint        string            `json:"hint"`   // the API key's last four characters
	Digest      credential.Digest `json:"-"`
	// Public is the API key itself where its kind may be shown again.
	Public string `json:"public,omitempty"`
	// Created is zero for a key that is known from a published bundle alone.
	Created   time.Time  `json:"created,omitzero"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	Revoked   *time.Time `json:"revoked,omitempty"`
	IPs       []string   `json:"ips,omitempty"`
	Referrers []string   `json:"referrers,omitempty"`
	Endpoints []string   `json:"endpoints,omitempty"`
	// Replaces is the key that this one was rolled from.
	Replaces string `json:"replaces,omitempty"`
	// Rotate says that the key is older than its policy wants.
	Rotate bool `json:"rotate,omitempty"`
}

// record is the key as edges get it.
func (k *Key) record() (bundle.Record, error) {
	status, err := bundle.ParseStatus(k.Status)
	if err != nil {
		return bundle.Record{}, fmt.Errorf("key %s: %w", k.ID, err)
	}
	r := bundle.Record{
		Digest: k.Digest, KeyID: k.ID, Kind: k.Kind, Environment: k.Environment, Tenant: k.Tenant,
		Status: status, Scopes: k.Scopes, NotBefore: unix(k.NotBefore), Expires: unix(k.Expires),
	}
	return r, r.Restrict(k.IPs, k.Referrers, k.Endpoints)
}

func unix(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// LastSigned is what was signed last for a bundle.
type LastSigned struct {
	Version       int64  // of the manifest
	PolicyVersion int64  // of the policy note
	PolicyNote    []byte // exact bytes
	Compiled      []byte // the policy under it
	// Root is that of the tree of the store's keys; zero if a program before
	// this one has signed.
	Root bundle.Hash
}

// ErrNotFound is returned for a key that the bundle does not have.
var ErrNotFound = errors.New("no such key")

// Store keeps keys. SQLite is one; every method may be called by several
// processes at once.
type Store interface {
	// Update runs change in a transaction that locks the bundle: nobody else
	// changes its keys or signs for it meanwhile. An error undoes everything.
	Update(ctx context.Context, bundle string, change func(Tx) error) error
	// View runs read on one state of the bundle. It waits for nobody who changes
	// the bundle meanwhile, and read must change nothing.
	View(ctx context.Context, bundle string, read func(Tx) error) error
	Close() error
}

// Tx is a transaction on one bundle.
type Tx interface {
	// Get returns a key, or [ErrNotFound].
	Get(ctx context.Context, id string) (*Key, error)
	// Find returns the key of a digest, or [ErrNotFound].
	Find(ctx context.Context, digest credential.Digest) (*Key, error)
	// Each calls use with every key, oldest first.
	Each(ctx context.Context, use func(*Key) error) error
	// Insert adds a key; a digest or ID that is or ever was there is an error.
	Insert(ctx context.Context, k *Key) error
	// SetStatus changes a key's status, and its end where one is given.
	SetStatus(ctx context.Context, id, status string, expires, revoked *time.Time) error
	// LastSigned returns what was signed last; the zero value if nothing was.
	LastSigned(ctx context.Context) (LastSigned, error)
	SetLastSigned(ctx context.Context, last LastSigned) error
}
