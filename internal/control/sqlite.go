package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/keystile/keystile/core/credential"
)

const schema = `
CREATE TABLE IF NOT EXISTS keys (
	bundle      TEXT NOT NULL,
	id          TEXT NOT NULL,
	name        TEXT NOT NULL,
	kind        TEXT NOT NULL,
	environment TEXT NOT NULL,
	tenant      TEXT NOT NULL,
	status      TEXT NOT NULL,
	digest      BLOB NOT NULL,
	hint        TEXT NOT NULL,
	public      TEXT NOT NULL,
	created     INTEGER NOT NULL,
	not_before  INTEGER,
	expires     INTEGER,
	revoked     INTEGER,
	replaces    TEXT NOT NULL,
	lists       TEXT NOT NULL,
	PRIMARY KEY (bundle, id),
	UNIQUE (bundle, digest)
) STRICT;
CREATE INDEX IF NOT EXISTS keys_created ON keys (bundle, created, id);
CREATE TABLE IF NOT EXISTS published (
	bundle         TEXT PRIMARY KEY,
	version        INTEGER NOT NULL,
	policy_version INTEGER NOT NULL,
	policy_note    BLOB NOT NULL,
	compiled       BLOB NOT NULL,
	root           BLOB
) STRICT;
`

type sqlite struct{ db *sql.DB }

// MakeSQLite opens the store in the file path, which is made if it is not there.
func MakeSQLite(path string) (Store, error) {
	// SQLite would make it as the umask says.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("key store %s: %w", path, err)
	}
	return OpenSQLite(path)
}

// OpenSQLite opens the store in the file path. The error wraps [fs.ErrNotExist]
// if there is none.
func OpenSQLite(path string) (Store, error) {
	if err := keepPrivate(path); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	// Every transaction takes the write lock at once: two that read first and
	// write later could not both go on.
	options := url.Values{
		"mode":    {"rw"},
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := prepare(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("key store %s: %w", path, explain(err))
	}
	return &sqlite{db}, nil
}

// prepare makes the tables, and adds what a store of before has not.
func prepare(db *sql.DB) error {
	if _, err := db.Exec(schema); err != nil {
		return err
	}
	var found int
	err := db.QueryRow(`SELECT count(*) FROM pragma_table_info('published') WHERE name = 'root'`).Scan(&found)
	if err == nil && found == 0 {
		_, err = db.Exec(`ALTER TABLE published ADD COLUMN root BLOB`)
	}
	return err
}

// explain says what SQLite does not: of a disk that is full it often says only
// that input or output has failed.
func explain(err error) error {
	var e *driver.Error
	if errors.As(err, &e) && e.Code()&0xff == codes.SQLITE_IOERR {
		return fmt.Errorf("%w: is the disk full?", err)
	}
	return err
}

// keepPrivate takes the store's files from everybody but their owner: they say
// whose keys there are.
func keepPrivate(path string) error {
	for _, file := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && file != path:
		case err != nil:
			return err
		case isOpenToOthers(info):
			if err := os.Chmod(file, 0o600); err != nil {
				return fmt.Errorf("others can use it (mode %04o), and that cannot be changed: %w: `chmod 600 %s`", info.Mode().Perm(), err, file)
			}
		}
	}
	return nil
}

// isOpenToOthers says whether anybody but a file's owner can use it, on systems
// where modes say that.
func isOpenToOthers(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}

func (s *sqlite) Close() error { return s.db.Close() }

func (s *sqlite) Update(ctx context.Context, name string, change func(Tx) error) error {
	return s.run(ctx, name, change)
}

func (s *sqlite) View(ctx context.Context, name string, read func(Tx) error) error {
	return s.run(ctx, name, read)
}

func (s *sqlite) run(ctx context.Context, name string, use func(Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("key store: %w", explain(err))
	}
	defer tx.Rollback() // does nothing after Commit
	if err := use(&sqliteTx{ctx, tx, name}); err != nil {
		return explain(err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("key store: %w", explain(err))
	}
	return nil
}

type sqliteTx struct {
	ctx    context.Context
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

func (t *sqliteTx) Get(id string) (*Key, error) {
	row := t.tx.QueryRowContext(t.ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? AND id = ?`, t.bundle, id)
	k, err := scanKey(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("key %q: %w in bundle %q", id, ErrNotFound, t.bundle)
	}
	return k, err
}

func (t *sqliteTx) Each(use func(*Key) error) error {
	rows, err := t.tx.QueryContext(t.ctx, `SELECT `+columns+` FROM keys WHERE bundle = ? ORDER BY created, id`, t.bundle)
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

func (t *sqliteTx) Insert(k *Key) error {
	encoded, err := json.Marshal(lists{k.Scopes, k.IPs, k.Referrers, k.Endpoints})
	if err != nil {
		return err
	}
	created := int64(0)
	if !k.Created.IsZero() {
		created = k.Created.Unix()
	}
	_, err = t.tx.ExecContext(t.ctx, `INSERT INTO keys (bundle, `+columns+`) VALUES (?`+strings.Repeat(", ?", 15)+`)`,
		t.bundle, k.ID, k.Name, k.Kind, k.Environment, k.Tenant, k.Status, k.Digest[:], k.Hint, k.Public,
		created, toNull(k.NotBefore), toNull(k.Expires), toNull(k.Revoked), k.Replaces, string(encoded))
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", k.ID, err)
	}
	return nil
}

func (t *sqliteTx) SetStatus(id, status string, expires, revoked *time.Time) error {
	_, err := t.tx.ExecContext(t.ctx, `UPDATE keys SET status = ?, expires = coalesce(?, expires), revoked = coalesce(?, revoked) WHERE bundle = ? AND id = ?`,
		status, toNull(expires), toNull(revoked), t.bundle, id)
	if err != nil {
		return fmt.Errorf("key store: key %s: %w", id, err)
	}
	return nil
}

func (t *sqliteTx) Published() (p LastSigned, err error) {
	row := t.tx.QueryRowContext(t.ctx, `SELECT version, policy_version, policy_note, compiled, root FROM published WHERE bundle = ?`, t.bundle)
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

func (t *sqliteTx) SetPublished(p LastSigned) error {
	_, err := t.tx.ExecContext(t.ctx, `INSERT INTO published (bundle, version, policy_version, policy_note, compiled, root) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (bundle) DO UPDATE SET version = excluded.version, policy_version = excluded.policy_version,
			policy_note = excluded.policy_note, compiled = excluded.compiled, root = excluded.root`,
		t.bundle, p.Version, p.PolicyVersion, p.PolicyNote, p.Compiled, p.Root[:])
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}
