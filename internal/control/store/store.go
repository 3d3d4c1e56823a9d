// Package store is what the control plane remembers: keys, the nodes of their
// trees, what was signed last, and the history of every change.
//
// A [Store] is an engine; package sqlstore has one. Whatever changes keys runs in
// [Store.Update], under the lock of the bundle, and whatever only reads in
// [Store.View], which waits for nobody. Package storetest is what every engine has
// to pass.
package store

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

// Record is the key as edges get it.
func (k *Key) Record() (bundle.Record, error) {
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
	// Tree is that of the store's keys. Its root is zero if a program signed that
	// did not keep it, and its nodes may then not be there either.
	Tree bundle.Tree
	// Expires is when the last manifest under that tree ends, in Unix milliseconds:
	// until then an edge may want its nodes.
	Expires int64
}

// Change is an entry of the history: what was done to a key, or to the bundle. It is
// written in the transaction that does it, and nobody changes it afterwards.
type Change struct {
	Sequence int64     `json:"sequence"` // ascends within a bundle
	At       time.Time `json:"at"`
	Action   string    `json:"action"`
	Key      string    `json:"key,omitempty"` // its ID; empty for what concerns the bundle
	Actor
	// Detail says more, for people: from what to what.
	Detail string `json:"detail,omitempty"`
}

// Actor is who makes a change.
type Actor struct {
	Who  string `json:"who,omitempty"`  // a user of the machine, or a key
	From string `json:"from,omitempty"` // the machine or address
}

type actorKey struct{}

// WithActor returns a context in which a makes the changes.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf is who makes the changes in a context; the zero value if nobody said so.
func ActorOf(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return a
}

// ErrNotFound is returned for a key that the bundle does not have.
var ErrNotFound = errors.New("no such key")

// ErrNoNode is returned for a node that the store does not keep.
var ErrNoNode = errors.New("the key store does not have it")

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
	Find(ctx context.Context, d credential.Digest) (*Key, error)
	// Each calls use with every key, oldest first.
	Each(ctx context.Context, use func(*Key) error) error
	// Insert adds a key; a digest or ID that is or ever was there is an error.
	Insert(ctx context.Context, k *Key) error
	// SetStatus changes a key's status, and its end where one is given.
	SetStatus(ctx context.Context, id, status string, expires, revoked *time.Time) error

	// LastSigned returns what was signed last; the zero value if nothing was.
	LastSigned(ctx context.Context) (LastSigned, error)
	SetLastSigned(ctx context.Context, last LastSigned) error

	// Node returns a node of a tree, or [ErrNoNode].
	Node(ctx context.Context, hash bundle.Hash) ([]byte, error)
	// PutNode keeps a node, also one that was dropped before.
	PutNode(ctx context.Context, hash bundle.Hash, node []byte) error
	// DropNode says that the tree does not have a node any more, and that edges want
	// it until a time in Unix milliseconds. A node that is not there is no error.
	DropNode(ctx context.Context, hash bundle.Hash, until int64) error
	// DropNodes is DropNode of every node that was not dropped yet.
	DropNodes(ctx context.Context, until int64) error
	// CollectNodes deletes what edges did not want any more at a time, and returns
	// how many nodes that were.
	CollectNodes(ctx context.Context, at int64) (int64, error)

	// Log adds an entry to the history, and sets its Sequence.
	Log(ctx context.Context, c *Change) error
	// History calls use with what was done to a key, or with an empty ID to all and
	// to the bundle, oldest first, after an entry.
	History(ctx context.Context, id string, after int64, use func(*Change) error) error
}
