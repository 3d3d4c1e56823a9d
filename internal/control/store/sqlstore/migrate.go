package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/rogpeppe/go-internal/lockedfile"
)

//go:embed migrations
var migrations embed.FS

// migrate makes the tables, and of a store of before one of today. Only one process
// does so at a time. A store that a later version of this program has made is an
// error: it may keep what this one would lose.
func migrate(path string, db *sql.DB) error {
	ctx := context.Background()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(goose.NewGoMigration(2, &goose.GoFunc{RunTx: addRoot}, nil)))
	if err != nil {
		return err
	}
	current, first := isCurrent(ctx, p)
	if current && first == nil {
		return nil
	}
	// Also after an error: whoever makes a new store's tables locks it meanwhile.
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return err
	}
	defer unlock()
	current, err = isCurrent(ctx, p)
	if err != nil && first != nil {
		return first // it says why, and what came of it does not
	}
	if current || err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// isCurrent says whether a store has the tables of today.
func isCurrent(ctx context.Context, p *goose.Provider) (bool, error) {
	has, wants, err := p.GetVersions(ctx)
	if err == nil && has > wants {
		err = fmt.Errorf("a later version of this program has made it (schema %d, and this one knows %d): update this program", has, wants)
	}
	return has == wants, err
}

// addRoot is the second migration. Some stores had the column before there were
// migrations.
func addRoot(ctx context.Context, tx *sql.Tx) error {
	var found int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM pragma_table_info('published') WHERE name = 'root'`).Scan(&found)
	if err == nil && found == 0 {
		_, err = tx.ExecContext(ctx, `ALTER TABLE published ADD COLUMN root BLOB`)
	}
	return err
}
