package control

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
)

// keptTree is the tree in the store, and fails unless it is that of the store's keys,
// and what is published.
func keptTree(t *testing.T, b *Bundle) bundle.Tree {
	t.Helper()
	var last store.LastSigned
	var records []bundle.Record
	if err := b.view(ctx, func(tx store.Tx) (err error) {
		if last, err = tx.LastSigned(ctx); err != nil {
			return err
		}
		return tx.Each(ctx, func(k *Key) error {
			r, err := k.Record()
			records = append(records, r)
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	var nodes bundle.Nodes
	want, err := bundle.Build(records, nodes.Add)
	if err != nil {
		t.Fatal(err)
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if published := (bundle.Tree{Root: opened.Manifest.Root, Keys: opened.Manifest.Keys}); last.Tree != want || published != want {
		t.Errorf("the store has the tree %v, the file %v, and the keys make %v", last.Tree, published, want)
	}
	if err := b.view(ctx, func(tx store.Tx) error {
		return nodes.Each(func(h bundle.Hash, _ []byte) error { _, err := tx.Node(ctx, h); return err })
	}); err != nil {
		t.Errorf("a node of the tree in force: %v", err)
	}
	return want
}

// Whatever is done, the tree in the store is that of its keys: over the border of a
// leaf, after a store of before, after nodes were lost, and after an error.
func TestTreeFollowsKeys(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	keptTree(t, b)
	var ids []string
	many := func(n int) {
		if err := b.Publisher().change(ctx, func(tx store.Tx) error {
			for range n {
				k, _, err := b.Keyring().newKey(NewKey{Kind: "secret", Environment: "live"})
				if err != nil {
					return err
				}
				if err := tx.Insert(ctx, k); err != nil {
					return err
				}
				ids = append(ids, k.ID)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		keptTree(t, b)
	}
	steps := map[string]func(){
		"revoke": func() {
			if _, err := b.Keyring().Revoke(ctx, ids[0]); err != nil {
				t.Fatal(err)
			}
		},
		"revoke again": func() {
			if _, err := b.Keyring().Revoke(ctx, ids[0]); err != nil {
				t.Fatal(err)
			}
		},
		"roll": func() {
			end := time.Now().Add(time.Hour)
			if _, err := b.Keyring().Roll(ctx, ids[1], Roll{End: &end}); err != nil {
				t.Fatal(err)
			}
		},
		"an error": func() {
			broken := errors.New("broken")
			if err := b.Publisher().change(ctx, func(tx store.Tx) error {
				return errors.Join(tx.SetStatus(ctx, ids[2], revoked, nil, nil), broken)
			}); !errors.Is(err, broken) {
				t.Fatal(err)
			}
		},
		"build": func() { noError(t, b.Publisher().Build(ctx)) },
		"renew": func() { noError(t, b.Publisher().Renew(ctx, 0)) },
		"nodes are lost": func() {
			inStore(t, b, `DELETE FROM nodes WHERE length(node) < (SELECT max(length(node)) FROM nodes)`)
			many(1)
		},
		"all nodes are lost": func() { inStore(t, b, `DELETE FROM nodes`); many(1) },
		"all nodes are lost, and nothing is changed": func() {
			for range 2 {
				if _, err := b.Keyring().Revoke(ctx, ids[0]); err != nil {
					t.Fatal(err)
				}
				keptTree(t, b)
				inStore(t, b, `DELETE FROM nodes; UPDATE published SET keys = 0`)
			}
			many(0)
		},
		"a damaged node": func() { inStore(t, b, `UPDATE nodes SET node = x'00'`); many(2) },
		"a program of before": func() {
			inStore(t, b, `DROP TABLE goose_db_version; DROP TABLE nodes; DROP TABLE history;
				ALTER TABLE published DROP COLUMN keys; ALTER TABLE published DROP COLUMN expires`)
			b = reopen(t, b, func(string) {})
			many(1)
		},
	}
	many(3)
	for _, n := range []int{1, 62, 70} { // a leaf, a leaf that becomes two, a branch
		many(n)
		for name, do := range steps {
			before := t.Failed()
			do()
			if keptTree(t, b); t.Failed() && !before {
				t.Fatalf("%d keys: %s", len(ids), name)
			}
		}
	}
}

// Nodes that the tree does not have any more are kept until the last bundle that had
// them has expired, and an hour more.
func TestNodesAreCollected(t *testing.T) {
	for name, whole := range map[string]bool{"along the paths": false, "built anew": true} {
		t.Run(name, func(t *testing.T) { testNodesAreCollected(t, whole) })
	}
}

func testNodesAreCollected(t *testing.T, whole bool) {
	home := open(t, t.TempDir())
	at := time.Now()
	home.now = func() time.Time { return at }
	b := initBundle(t, home, "default")
	create := func() {
		k, _, err := b.Keyring().newKey(NewKey{Kind: "secret", Environment: "live"})
		noError(t, err)
		insert := func(tx store.Tx, _ *store.LastSigned) error { return tx.Insert(ctx, k) }
		noError(t, b.Publisher().publish(ctx, step{whole: whole, prepare: insert}))
	}
	create()
	first := keptTree(t, b)
	at = at.Add(time.Hour)
	noError(t, b.Publisher().Renew(ctx, 0)) // the store does not learn of it
	expires := at.Add(b.lifetime())
	create()
	for _, tt := range []struct {
		at   time.Time
		kept bool
	}{
		{expires.Add(-time.Minute), true},
		{expires.Add(collectAfter - time.Minute), true},
		{expires.Add(collectAfter + time.Minute), false},
	} {
		at = tt.at
		create()
		keptTree(t, b)
		err := b.view(ctx, func(tx store.Tx) error { _, err := tx.Node(ctx, first.Root); return err })
		if (err == nil) != tt.kept {
			t.Errorf("%v after the bundle has expired: %v", at.Sub(expires), err)
		}
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A part of the tree that was lost beside the path of a change is told, with what
// mends it, and nothing is half done.
func TestTreeThatWasLost(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	for range 70 {
		create(t, b, NewKey{})
	}
	keptTree(t, b)
	keys, err := b.Keyring().List(ctx)
	noError(t, err)
	// The leaf that is lost lies beside the path of the key that is revoked: a loss on
	// the path itself is made good by the way.
	leaf := leafOf(t, b, keys[0])
	other := leaf
	for _, k := range keys {
		if other = leafOf(t, b, k); other != leaf {
			break
		}
	}
	inStore(t, b, fmt.Sprintf("DELETE FROM nodes WHERE hash = x'%x'", other[:]))
	if _, err := b.Keyring().Revoke(ctx, keys[0].ID); err == nil || !strings.Contains(err.Error(), "bundle build") {
		t.Fatalf("the loss is not met, or the error does not say how to mend it: %v", err)
	}
	noError(t, b.Publisher().Build(ctx))
	_, err = b.Keyring().Revoke(ctx, keys[0].ID)
	noError(t, err)
	keptTree(t, b)
}

// leafOf is the leaf of the published bundle that holds a key.
func leafOf(t *testing.T, b *Bundle, k *Key) bundle.Hash {
	t.Helper()
	opened, source, err := b.OpenFile()
	noError(t, err)
	defer source.Close()
	_, leaf, err := opened.Find(&k.Digest, nil)
	noError(t, err)
	return leaf
}
