package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keystile/keystile/internal/control/store"
)

// Actions are what the history tells of.
const (
	keyCreated      = "key.created"
	keyRolled       = "key.rolled" // the old key; the new one is created
	keyRevoked      = "key.revoked"
	keyRestored     = "key.restored"
	policyPublished = "policy.published"
)

// log writes into the history what is done to a key, or with an empty ID to the
// bundle, by whoever the context names.
func (b *Bundle) log(ctx context.Context, tx store.Tx, action, id, detail string) error {
	return tx.Log(ctx, &store.Change{
		At: b.home.now().UTC().Truncate(time.Millisecond), Action: action, Key: id, Actor: store.ActorOf(ctx), Detail: detail,
	})
}

// History returns what was done to a key, or with an empty ID to all and to the
// bundle, oldest first.
func (r *Keyring) History(ctx context.Context, id string) (changes []*store.Change, err error) {
	err = r.bundle.view(ctx, func(tx store.Tx) error {
		if id != "" {
			if _, err := tx.Get(ctx, id); err != nil {
				return err
			}
		}
		return tx.History(ctx, id, 0, func(c *store.Change) error {
			changes = append(changes, c)
			return nil
		})
	})
	return changes, err
}

// rights says in words what a key may do, for the history.
func rights(k *Key) string {
	parts := []string{k.Kind, k.Environment}
	add := func(name string, values ...string) {
		if text := strings.Join(values, " "); text != "" {
			parts = append(parts, name+" "+text)
		}
	}
	add("tenant", k.Tenant)
	add("scopes", k.Scopes...)
	add("IPs", k.IPs...)
	add("referrers", k.Referrers...)
	add("endpoints", k.Endpoints...)
	if k.NotBefore != nil {
		add("from", k.NotBefore.UTC().Format(time.RFC3339))
	}
	if k.Expires != nil {
		add("until", k.Expires.UTC().Format(time.RFC3339))
	}
	add("replaces", k.Replaces)
	return strings.Join(parts, ", ")
}

// ends says when a rolled key ends.
func ends(by string, end *time.Time) string {
	if end == nil {
		return fmt.Sprintf("replaced by %s, works until it is revoked", by)
	}
	return fmt.Sprintf("replaced by %s, works until %s", by, end.UTC().Format(time.RFC3339))
}
