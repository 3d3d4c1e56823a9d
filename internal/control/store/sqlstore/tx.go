package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
)

// tx is a transaction on the rows of one bundle.
type tx struct {
	sql    *sql.Tx
	bundle string
}

// lists are the parts of a key that are lists, as one JSON value.
type lists struct {
	Scopes    []string `json:"scopes,omitempty"`
	IPs       []string `json:"ips,omitempty"`
	Referrers []string `json:"referrers,omitempty"`
	Endpoints []string `json:"endpoints,omitempty"`
}

const columns = `id, name, kind, environment, tenant, status, digest, hint, public, created, not_before, expires, revoked, replaces, lists`

func scanKey(scan func(...any) error) (*store.Key, error) {
	k := new(store.Key)
	var digest []byte
	var created int64
	var notBefore, expires, revoked sql.NullInt64
	var encoded string
	if err := scan(&k.ID, &k.Name, &k.Kind, &k.Environment, &k.Tenant, &k.Status, &digest, &k.Hint, &k.Public,
		&created, &notBefore, &expires, &revoked, &k.Replaces, &encoded); err != nil {
		return nil, err
	}
	if len(digest) != len(k.Digest) {
		return nil, fmt.Errorf("key %s: its digest has %d bytes", k.ID, len(digest))
	}
	k.Digest = credential.Digest(digest)
	if created != 0 {
		k.Created = time.Unix(created, 0).UTC()
	}
	k.NotBefore, k.Expires, k.Revoked = fromNull(notBefore), fromNull(expires), fromNull(revoked)
	var l lists
	if err := json.Unmarshal([]byte(encoded), &l); err != nil {
		return nil, fmt.Errorf("key %s: %w", k.ID, err)
	}
	k.Scopes, k.IPs, k.Referrers, k.Endpoints = l.Scopes, l.IPs, l.Referrers, l.Endpoints
	return k, nil
}

func fromNull(n sql.NullInt64) *time.Time {
	if !n.Valid {
		return nil
	}
	t := time.Unix(n.Int64, 0).UTC()
	return &t
}

func toNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.Unix()
}

func (t *tx) Get(ctx context.Context, id string) (*store.Key, error) {
	row := t.sql.QueryRowContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? AND id = ?`, t.bundle, id)
	k, err := scanKey(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("key %q: %w in bundle %q", id, store.ErrNotFound, t.bundle)
	}
	return k, err
}

func (t *tx) Find(ctx context.Context, d credential.Digest) (*store.Key, error) {
	row := t.sql.QueryRowContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? AND digest = ?`, t.bundle, d[:])
	k, err := scanKey(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNotFound
	}
	return k, err
}

func (t *tx) Each(ctx context.Context, use func(*store.Key) error) error {
	rows, err := t.sql.QueryContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? ORDER BY created, id`, t.bundle)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		k, err := scanKey(rows.Scan)
		if err != nil {
			return err
		}
		if err := use(k); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *tx) Insert(ctx context.Context, k *store.Key) error {
	encoded, err := json.Marshal(lists{k.Scopes, k.IPs, k.Referrers, k.Endpoints})
	if err != nil {
		return err
	}
	created := int64(0)
	if !k.Created.IsZero() {
		created = k.Created.Unix()
	}
	_, err = t.sql.ExecContext(ctx, `INSERT INTO keys (bundle, `+columns+`) VALUES (?`+strings.Repeat(", ?", 15)+`)`,
		t.bundle, k.ID, k.Name, k.Kind, k.Environment, k.Tenant, k.Status, k.Digest[:], k.Hint, k.Public,
		created, toNull(k.NotBefore), toNull(k.Expires), toNull(k.Revoked), k.Replaces, string(encoded))
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", k.ID, err)
	}
	return nil
}

func (t *tx) SetStatus(ctx context.Context, id, status string, expires, revoked *time.Time) error {
	_, err := t.sql.ExecContext(ctx, `UPDATE keys SET status = ?, expires = coalesce(?, expires), revoked = coalesce(?, revoked) WHERE bundle = ? AND id = ?`,
		status, toNull(expires), toNull(revoked), t.bundle, id)
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", id, err)
	}
	return nil
}

func (t *tx) LastSigned(ctx context.Context) (p store.LastSigned, err error) {
	row := t.sql.QueryRowContext(ctx, `SELECT version, policy_version, policy_note, compiled, root, keys, expires FROM published WHERE bundle = ?`, t.bundle)
	var root []byte
	err = row.Scan(&p.Version, &p.PolicyVersion, &p.PolicyNote, &p.Compiled, &root, &p.Tree.Keys, &p.Expires)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err == nil && root != nil && copy(p.Tree.Root[:], root) != len(p.Tree.Root) {
		err = fmt.Errorf("bundle %s: its root has %d bytes", t.bundle, len(root))
	}
	return p, err
}

func (t *tx) SetLastSigned(ctx context.Context, p store.LastSigned) error {
	return t.exec(ctx, `INSERT INTO published (bundle, version, policy_version, policy_note, compiled, root, keys, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (bundle) DO UPDATE SET version = excluded.version, policy_version = excluded.policy_version,
			policy_note = excluded.policy_note, compiled = excluded.compiled, root = excluded.root, keys = excluded.keys, expires = excluded.expires`,
		t.bundle, p.Version, p.PolicyVersion, p.PolicyNote, p.Compiled, p.Tree.Root[:], p.Tree.Keys, p.Expires)
}

func (t *tx) Node(ctx context.Context, hash bundle.Hash) (node []byte, err error) {
	err = t.sql.QueryRowContext(ctx, `SELECT node FROM nodes WHERE bundle = ? AND hash = ?`, t.bundle, hash[:]).Scan(&node)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNoNode
	}
	return node, err
}

func (t *tx) PutNode(ctx context.Context, hash bundle.Hash, node []byte) error {
	return t.exec(ctx, `INSERT INTO nodes (bundle, hash, node) VALUES (?, ?, ?) ON CONFLICT (bundle, hash) DO UPDATE SET node = excluded.node, wanted_until = NULL`,
		t.bundle, hash[:], node)
}

func (t *tx) DropNode(ctx context.Context, hash bundle.Hash, until int64) error {
	return t.exec(ctx, `UPDATE nodes SET wanted_until = ? WHERE bundle = ? AND hash = ?`, until, t.bundle, hash[:])
}

func (t *tx) DropNodes(ctx context.Context, until int64) error {
	return t.exec(ctx, `UPDATE nodes SET wanted_until = ? WHERE bundle = ? AND wanted_until IS NULL`, until, t.bundle)
}

func (t *tx) CollectNodes(ctx context.Context, at int64) (int64, error) {
	result, err := t.sql.ExecContext(ctx, `DELETE FROM nodes WHERE bundle = ? AND wanted_until < ?`, t.bundle, at)
	if err != nil {
		return 0, fmt.Errorf("key store: %w", err)
	}
	return result.RowsAffected()
}

func (t *tx) Log(ctx context.Context, c *store.Change) error {
	row := t.sql.QueryRowContext(ctx, `INSERT INTO history (bundle, sequence, at, action, key, who, came_from, detail)
		VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM history WHERE bundle = ?1), ?2, ?3, ?4, ?5, ?6, ?7) RETURNING sequence`,
		t.bundle, c.At.UnixMilli(), c.Action, c.Key, c.Who, c.From, c.Detail)
	if err := row.Scan(&c.Sequence); err != nil {
		return fmt.Errorf("key store: history: %w", err)
	}
	return nil
}

func (t *tx) History(ctx context.Context, id string, after int64, use func(*store.Change) error) error {
	rows, err := t.sql.QueryContext(ctx, `SELECT sequence, at, action, key, who, came_from, detail FROM history
		WHERE bundle = ?1 AND (?2 = '' OR key = ?2) AND sequence > ?3 ORDER BY sequence`, t.bundle, id, after)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var c store.Change
		var at int64
		if err := rows.Scan(&c.Sequence, &at, &c.Action, &c.Key, &c.Who, &c.From, &c.Detail); err != nil {
			return err
		}
		c.At = time.UnixMilli(at).UTC()
		if err := use(&c); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	if _, err := t.sql.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}
