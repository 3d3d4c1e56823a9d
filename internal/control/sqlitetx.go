package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keystile/keystile/core/credential"
)

// sqliteTx is a transaction on the rows of one bundle.
type sqliteTx struct {
	tx     *sql.Tx
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

func scanKey(scan func(...any) error) (*Key, error) {
	k := new(Key)
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

func (t *sqliteTx) Get(ctx context.Context, id string) (*Key, error) {
	row := t.tx.QueryRowContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? AND id = ?`, t.bundle, id)
	k, err := scanKey(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("key %q: %w in bundle %q", id, ErrNotFound, t.bundle)
	}
	return k, err
}

func (t *sqliteTx) Find(ctx context.Context, digest credential.Digest) (*Key, error) {
	row := t.tx.QueryRowContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? AND digest = ?`, t.bundle, digest[:])
	k, err := scanKey(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return k, err
}

func (t *sqliteTx) Each(ctx context.Context, use func(*Key) error) error {
	rows, err := t.tx.QueryContext(ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? ORDER BY created, id`, t.bundle)
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

func (t *sqliteTx) Insert(ctx context.Context, k *Key) error {
	encoded, err := json.Marshal(lists{k.Scopes, k.IPs, k.Referrers, k.Endpoints})
	if err != nil {
		return err
	}
	created := int64(0)
	if !k.Created.IsZero() {
		created = k.Created.Unix()
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO keys (bundle, `+columns+`) VALUES (?`+strings.Repeat(", ?", 15)+`)`,
		t.bundle, k.ID, k.Name, k.Kind, k.Environment, k.Tenant, k.Status, k.Digest[:], k.Hint, k.Public,
		created, toNull(k.NotBefore), toNull(k.Expires), toNull(k.Revoked), k.Replaces, string(encoded))
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", k.ID, err)
	}
	return nil
}

func (t *sqliteTx) SetStatus(ctx context.Context, id, status string, expires, revoked *time.Time) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE keys SET status = ?, expires = coalesce(?, expires), revoked = coalesce(?, revoked) WHERE bundle = ? AND id = ?`,
		status, toNull(expires), toNull(revoked), t.bundle, id)
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", id, err)
	}
	return nil
}

func (t *sqliteTx) LastSigned(ctx context.Context) (p LastSigned, err error) {
	row := t.tx.QueryRowContext(ctx, `SELECT version, policy_version, policy_note, compiled, root FROM published WHERE bundle = ?`, t.bundle)
	var root []byte
	err = row.Scan(&p.Version, &p.PolicyVersion, &p.PolicyNote, &p.Compiled, &root)
	if errors.Is(err, sql.ErrNoRows) {
		return p, nil
	}
	if err == nil && root != nil && copy(p.Root[:], root) != len(p.Root) {
		err = fmt.Errorf("bundle %s: its root has %d bytes", t.bundle, len(root))
	}
	return p, err
}

func (t *sqliteTx) SetLastSigned(ctx context.Context, p LastSigned) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO published (bundle, version, policy_version, policy_note, compiled, root) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (bundle) DO UPDATE SET version = excluded.version, policy_version = excluded.policy_version,
			policy_note = excluded.policy_note, compiled = excluded.compiled, root = excluded.root`,
		t.bundle, p.Version, p.PolicyVersion, p.PolicyNote, p.Compiled, p.Root[:])
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}
