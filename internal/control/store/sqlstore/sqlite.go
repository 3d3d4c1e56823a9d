// Package sqlstore keeps the control plane's keys in SQL: SQLite, in a file of its
// own. What it says of a bundle is in tx.go, and how a store of before becomes one
// of today in migrations.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
)

// maxReaders is how many listings read at once; a further one waits for them.
const maxReaders = 4

// sqlite is a store in a file. Whoever reads does not wait for whoever writes:
// SQLite's write-ahead log lets both go on, and one connection writes.
type sqlite struct{ write, read *sql.DB }

// MakeSQLite opens the store in the file path, which is made if it is not there.
func MakeSQLite(path string) (store.Store, error) {
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
func OpenSQLite(path string) (store.Store, error) {
	if err := keepPrivate(path); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	// Every transaction that writes takes the lock at once: two that read first
	// and write later could not both go on.
	write, err := connect(path, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	// One that reads takes no lock, and sees the store as it was when it began.
	read, err := connect(path, url.Values{"_txlock": {"deferred"}, "_query_only": {"1"}})
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(maxReaders)
	s := &sqlite{write: write, read: read}
	if err := migrate(path, write); err != nil {
		s.Close()
		return nil, fmt.Errorf("key store %s: %w", path, explain(err))
	}
	return s, nil
}

// connect gives connections to the store in the file path, which has to be there.
func connect(path string, options url.Values) (*sql.DB, error) {
	options.Set("mode", "rw")
	options["_pragma"] = []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
}

// explain says what SQLite does not: of a disk that is full it often says only
// that input or output has failed, and of a damaged file not what mends it.
func explain(err error) error {
	var e *driver.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_IOERR:
		return fmt.Errorf("%w: is the disk full?", err)
	case codes.SQLITE_NOTADB, codes.SQLITE_CORRUPT:
		return fmt.Errorf("%w: move it away, then put a copy of it there, or take over what is published with `caddy keystile keys restore`", err)
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
		case disk.OpenToOthers(info):
			if err := os.Chmod(file, 0o600); err != nil {
				return fmt.Errorf("others can use it (mode %04o), and that cannot be changed: %w: `chmod 600 %s`", info.Mode().Perm(), err, file)
			}
		}
	}
	return nil
}

func (s *sqlite) Close() error {
	// The last connection to close folds the log into the file, and that one
	// has to be able to write.
	return errors.Join(s.read.Close(), s.write.Close())
}

func (s *sqlite) Update(ctx context.Context, name string, change func(store.Tx) error) error {
	return within(ctx, s.write, name, change)
}

func (s *sqlite) View(ctx context.Context, name string, read func(store.Tx) error) error {
	return within(ctx, s.read, name, read)
}

// within runs use in a transaction of its own.
func within(ctx context.Context, db *sql.DB, name string, use func(store.Tx) error) error {
	sql, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("key store: %w", explain(err))
	}
	defer sql.Rollback() // does nothing after Commit
	if err := use(&tx{sql, name}); err != nil {
		return explain(err)
	}
	if err := sql.Commit(); err != nil {
		return fmt.Errorf("key store: %w", explain(err))
	}
	return nil
}
