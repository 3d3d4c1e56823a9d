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
	has, wants, err := p.GetVersions(ctx)
	switch {
	case err != nil || has == wants:
		return err
	case has > wants:
		return fmt.Errorf("a later version of this program has made it (schema %d, and this one knows %d): update this program", has, wants)
	}
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return err
	}
	defer unlock()
	_, err = p.Up(ctx)
	return err
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
