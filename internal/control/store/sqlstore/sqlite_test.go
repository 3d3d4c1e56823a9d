package sqlstore

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/control/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T, place string) store.Store {
		s, err := MakeSQLite(filepath.Join(place, "keys.db"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// before makes a store as a version of this program made it that knew no migrations.
func before(t *testing.T, statements string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.db")
	dump, err := os.ReadFile("testdata/8acffa7.sql")
	if err != nil {
		t.Fatal(err)
	}
	run(t, path, string(dump)+statements)
	return path
}

func run(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

// A store of a version before keeps every key and what was signed last, whoever
// opens it first, and several do at once.
func TestStoreOfBefore(t *testing.T) {
	for name, statements := range map[string]string{
		"without roots": "", "with roots": "ALTER TABLE published ADD COLUMN root BLOB; UPDATE published SET root = zeroblob(32);",
	} {
		t.Run(name, func(t *testing.T) {
			path := before(t, statements)
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					s, err := OpenSQLite(path)
					if err != nil {
						t.Error(err)
						return
					}
					defer s.Close()
					if err := s.View(t.Context(), "shop", func(tx store.Tx) error {
						keys := 0
						if err := tx.Each(t.Context(), func(*store.Key) error { keys++; return nil }); err != nil {
							return err
						}
						k, err := tx.Get(t.Context(), "key_AAAAAAAAAAAAAAAA")
						if err != nil || keys != 2 || k.Name != "first" || k.Status != "deprecated" || len(k.Scopes) != 1 || k.Expires == nil {
							t.Errorf("%d keys, %+v, %v", keys, k, err)
						}
						last, err := tx.LastSigned(t.Context())
						if last.Version != 1764000000000 || string(last.PolicyNote) != "note" || last.Tree.Keys != 0 {
							t.Errorf("%+v", last)
						}
						return err
					}); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
		})
	}
}

// A store of a version to come is not opened: this program would not keep what that
// one needs.
func TestStoreOfAfter(t *testing.T) {
	path := before(t, "")
	s, err := OpenSQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	run(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, 1)")
	if _, err := OpenSQLite(path); err == nil || !strings.Contains(err.Error(), "update this program") {
		t.Error(err)
	}
}

// The history is append-only, also for who forgets it.
func TestHistoryStays(t *testing.T) {
	path := before(t, "")
	s, err := OpenSQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(t.Context(), "shop", func(tx store.Tx) error { return tx.Log(t.Context(), &store.Change{Action: "x"}) }); err != nil {
		t.Fatal(err)
	}
	db := s.(*sqlite).write
	if _, err := db.Exec("UPDATE history SET who = 'nobody'"); err == nil || !strings.Contains(err.Error(), "not changed") {
		t.Error(err)
	}
}
