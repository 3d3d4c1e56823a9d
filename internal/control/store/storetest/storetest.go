// Package storetest is what every engine behind store.Store has to pass: call
// [Run] from the engine's own tests.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control/store"
)

// Run runs the suite. open returns a new, empty store for each case; opened a second
// time, from the same place, it is another process's.
func Run(t *testing.T, open func(t *testing.T, place string) store.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s, other store.Store)
	}{
		{"a key is what it was", sameKey},
		{"what is not there", notThere},
		{"one ID and one digest", onlyOnce},
		{"keys oldest first", oldestFirst},
		{"a status, an end", status},
		{"an error undoes", undone},
		{"bundles do not meet", apart},
		{"a reader waits for nobody", readers},
		{"readers change nothing", readOnly},
		{"one writer after the other", writers},
		{"what was signed last", lastSigned},
		{"nodes", nodes},
		{"history", history},
		{"a cancelled context", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := t.TempDir()
			s, other := open(t, place), open(t, place)
			defer s.Close()
			defer other.Close()
			c.test(t, s, other)
		})
	}
}

const name = "shop"

// Key is a key that has everything, number i of a bundle.
func Key(i int) *store.Key {
	at := func(hours int) *time.Time {
		t := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC).Add(time.Duration(hours) * time.Hour)
		return &t
	}
	return &store.Key{
		ID: fmt.Sprintf("key_%03d", i), Name: "Ünïcode 'quoted'; --", Kind: "secret", Environment: "live", Tenant: "acme",
		Scopes: []string{"a:read", "b:write"}, Status: "active", Hint: "wXyZ", Digest: sha256.Sum256([]byte{byte(i), byte(i >> 8)}),
		Public: "pk_live_…", Created: *at(i), NotBefore: at(i - 1), Expires: at(i + 100), IPs: []string{"10.0.0.0/8"},
		Referrers: []string{"https://*.example.com"}, Endpoints: []string{"GET /v1/{x}"}, Replaces: "key_before",
	}
}

func update(t *testing.T, s store.Store, change func(tx store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), name, change); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s store.Store, read func(tx store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), name, read); err != nil {
		t.Fatal(err)
	}
}

func insert(t *testing.T, s store.Store, keys ...*store.Key) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		for _, k := range keys {
			if err := tx.Insert(t.Context(), k); err != nil {
				return err
			}
		}
		return nil
	})
}

func ids(t *testing.T, s store.Store) (all []string) {
	t.Helper()
	view(t, s, func(tx store.Tx) error {
		return tx.Each(t.Context(), func(k *store.Key) error { all = append(all, k.ID); return nil })
	})
	return all
}

func sameKey(t *testing.T, s, other store.Store) {
	bare := &store.Key{ID: "key_bare", Kind: "secret", Environment: "live", Status: "active", Digest: sha256.Sum256([]byte("bare"))}
	for _, want := range []*store.Key{Key(1), bare} {
		insert(t, s, want)
		view(t, other, func(tx store.Tx) error {
			got, err := tx.Get(t.Context(), want.ID)
			if err == nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%+v instead of %+v", got, want)
			}
			if found, e := tx.Find(t.Context(), want.Digest); e != nil || !reflect.DeepEqual(found, want) {
				t.Errorf("by its digest: %+v, %v", found, e)
			}
			return err
		})
	}
}

func notThere(t *testing.T, s, _ store.Store) {
	view(t, s, func(tx store.Tx) error {
		if _, err := tx.Get(t.Context(), "key_none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v", err)
		}
		if _, err := tx.Find(t.Context(), credential.Digest{1}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%v", err)
		}
		if _, err := tx.Node(t.Context(), bundle.Hash{1}); !errors.Is(err, store.ErrNoNode) {
			t.Errorf("%v", err)
		}
		last, err := tx.LastSigned(t.Context())
		if !reflect.DeepEqual(last, store.LastSigned{}) {
			t.Errorf("%+v", last)
		}
		return err
	})
}

func onlyOnce(t *testing.T, s, _ store.Store) {
	insert(t, s, Key(1))
	sameID, sameDigest := Key(2), Key(3)
	sameID.ID, sameDigest.Digest = Key(1).ID, Key(1).Digest
	for what, k := range map[string]*store.Key{"ID": sameID, "digest": sameDigest} {
		if err := s.Update(t.Context(), name, func(tx store.Tx) error { return tx.Insert(t.Context(), k) }); err == nil {
			t.Errorf("one %s is there twice", what)
		}
	}
}

func oldestFirst(t *testing.T, s, _ store.Store) {
	same := Key(2)
	same.ID, same.Digest = "key_002a", sha256.Sum256([]byte("same"))
	insert(t, s, Key(3), same, Key(1), Key(2))
	if got := fmt.Sprint(ids(t, s)); got != "[key_001 key_002 key_002a key_003]" {
		t.Error(got)
	}
}

func status(t *testing.T, s, _ store.Store) {
	insert(t, s, Key(1), Key(2))
	end, at := time.Unix(2e9, 0).UTC(), time.Unix(1.9e9, 0).UTC()
	update(t, s, func(tx store.Tx) error {
		return errors.Join(
			tx.SetStatus(t.Context(), Key(1).ID, "deprecated", &end, nil),
			tx.SetStatus(t.Context(), Key(1).ID, "revoked", nil, &at))
	})
	view(t, s, func(tx store.Tx) error {
		k, err := tx.Get(t.Context(), Key(1).ID)
		if err == nil && (k.Status != "revoked" || !k.Expires.Equal(end) || !k.Revoked.Equal(at)) {
			t.Errorf("%+v", k)
		}
		if other, e := tx.Get(t.Context(), Key(2).ID); e != nil || !reflect.DeepEqual(other, Key(2)) {
			t.Errorf("another key is %+v, %v", other, e)
		}
		return err
	})
}

func undone(t *testing.T, s, other store.Store) {
	broken := errors.New("broken")
	err := s.Update(t.Context(), name, func(tx store.Tx) error {
		return errors.Join(tx.Insert(t.Context(), Key(1)), tx.PutNode(t.Context(), bundle.Hash{1}, []byte("x")),
			tx.SetLastSigned(t.Context(), store.LastSigned{Version: 1, PolicyNote: []byte{}, Compiled: []byte{}}),
			tx.Log(t.Context(), &store.Change{At: time.Now(), Action: "x"}), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	notThere(t, other, nil)
	view(t, other, func(tx store.Tx) error {
		return tx.History(t.Context(), "", 0, func(c *store.Change) error { t.Errorf("%+v is left", c); return nil })
	})
	if left := ids(t, other); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
}

func apart(t *testing.T, s, _ store.Store) {
	insert(t, s, Key(1))
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.PutNode(t.Context(), bundle.Hash{1}, []byte("x")), tx.Log(t.Context(), &store.Change{At: time.Now(), Action: "x"}))
	})
	if err := s.Update(t.Context(), "other", func(tx store.Tx) error {
		if _, err := tx.Get(t.Context(), Key(1).ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another bundle's key: %v", err)
		}
		if _, err := tx.Find(t.Context(), Key(1).Digest); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another bundle's key by its digest: %v", err)
		}
		if _, err := tx.Node(t.Context(), bundle.Hash{1}); !errors.Is(err, store.ErrNoNode) {
			t.Errorf("another bundle's node: %v", err)
		}
		c := &store.Change{At: time.Now(), Action: "y"}
		return errors.Join(tx.Insert(t.Context(), Key(1)), tx.SetStatus(t.Context(), Key(1).ID, "revoked", nil, nil), tx.DropNodes(t.Context(), 1),
			tx.Log(t.Context(), c), ascends(c.Sequence, 1))
	}); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx store.Tx) error {
		k, err := tx.Get(t.Context(), Key(1).ID)
		if err == nil && k.Status != "active" {
			t.Error("a change of another bundle's key changed this one's")
		}
		return err
	})
	update(t, s, func(tx store.Tx) error {
		n, err := tx.CollectNodes(t.Context(), 2)
		if n != 0 {
			t.Error("another bundle dropped a node")
		}
		return err
	})
}

func ascends(got, want int64) error {
	if got != want {
		return fmt.Errorf("sequence %d instead of %d", got, want)
	}
	return nil
}

func readers(t *testing.T, s, other store.Store) {
	insert(t, s, Key(1))
	update(t, s, func(tx store.Tx) error {
		err := tx.Insert(t.Context(), Key(2))
		for _, reader := range []store.Store{s, other} { // of this process, and of another
			if got := ids(t, reader); len(got) != 1 {
				t.Errorf("%q are seen before the commit", got)
			}
		}
		return err
	})
	view(t, other, func(tx store.Tx) error { // one state from beginning to end
		_, err := tx.Get(t.Context(), Key(1).ID)
		insert(t, s, Key(3))
		if _, e := tx.Get(t.Context(), Key(3).ID); !errors.Is(e, store.ErrNotFound) {
			t.Errorf("a reader sees what came after it began: %v", e)
		}
		return err
	})
}

func readOnly(t *testing.T, s, _ store.Store) {
	if err := s.View(t.Context(), name, func(tx store.Tx) error { return tx.Insert(t.Context(), Key(1)) }); err == nil {
		t.Error("a reader has changed something")
	}
}

func writers(t *testing.T, s, other store.Store) {
	const each = 20
	var group sync.WaitGroup
	for i, of := range []store.Store{s, other, s} {
		group.Go(func() {
			for n := range each {
				if err := of.Update(t.Context(), name, func(tx store.Tx) error {
					last, err := tx.LastSigned(t.Context())
					if err != nil {
						return err
					}
					last.Version++
					last.PolicyNote, last.Compiled = []byte("note"), []byte("policy")
					return errors.Join(tx.SetLastSigned(t.Context(), last), tx.Insert(t.Context(), Key(i*each+n)),
						tx.Log(t.Context(), &store.Change{At: time.Now(), Action: "x"}))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	view(t, s, func(tx store.Tx) error {
		last, err := tx.LastSigned(t.Context())
		if last.Version != 3*each || len(ids(t, s)) != 3*each {
			t.Errorf("%d changes and %d keys instead of %d", last.Version, len(ids(t, s)), 3*each)
		}
		want := int64(0)
		return errors.Join(err, tx.History(t.Context(), "", 0, func(c *store.Change) error { want++; return ascends(c.Sequence, want) }))
	})
}

func lastSigned(t *testing.T, s, other store.Store) {
	for version := range int64(2) {
		want := store.LastSigned{
			Version: 1764000000000 + version, PolicyVersion: 7, PolicyNote: []byte("note\n"), Compiled: []byte{0, 1, 255},
			Tree: bundle.Tree{Root: bundle.Hash{9, byte(version)}, Keys: 12}, Expires: 1 << 50,
		}
		update(t, s, func(tx store.Tx) error { return tx.SetLastSigned(t.Context(), want) })
		view(t, other, func(tx store.Tx) error {
			got, err := tx.LastSigned(t.Context())
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%+v instead of %+v", got, want)
			}
			return err
		})
	}
}

func nodes(t *testing.T, s, _ store.Store) {
	kept := func() (left string) {
		view(t, s, func(tx store.Tx) error {
			for i := range byte(5) {
				if node, err := tx.Node(t.Context(), bundle.Hash{i}); err == nil && bytes.Equal(node, []byte{i, 0, 7}) {
					left += fmt.Sprint(i)
				}
			}
			return nil
		})
		return left
	}
	collect := func(at int64, want string) {
		t.Helper()
		before := kept()
		update(t, s, func(tx store.Tx) error {
			n, err := tx.CollectNodes(t.Context(), at)
			if int(n) != len(before)-len(want) {
				t.Errorf("%d nodes are collected, and %q become %q", n, before, want)
			}
			return err
		})
		if left := kept(); left != want {
			t.Errorf("%q are left at %d instead of %q", left, at, want)
		}
	}
	put := func(i byte) {
		update(t, s, func(tx store.Tx) error { return tx.PutNode(t.Context(), bundle.Hash{i}, []byte{i, 0, 7}) })
	}
	for i := range byte(5) {
		put(i)
	}
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.DropNode(t.Context(), bundle.Hash{1}, 100), tx.DropNode(t.Context(), bundle.Hash{2}, 100), tx.DropNode(t.Context(), bundle.Hash{99}, 1))
	})
	put(2) // it comes back
	collect(100, "01234")
	collect(101, "0234")
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.DropNode(t.Context(), bundle.Hash{3}, 200), tx.DropNodes(t.Context(), 300))
	})
	collect(201, "024") // what was dropped before keeps its time
	put(4)
	collect(301, "4")
}

func history(t *testing.T, s, other store.Store) {
	at := time.UnixMilli(1764000000123).UTC()
	want := []store.Change{
		{At: at, Action: "key.created", Key: "key_1", Actor: store.Actor{Who: "ann", From: "10.0.0.1"}, Detail: "secret, live"},
		{At: at, Action: "policy.published", Detail: "version 3"},
		{At: at, Action: "key.revoked", Key: "key_1"},
	}
	update(t, s, func(tx store.Tx) error {
		for i := range want {
			if err := tx.Log(t.Context(), &want[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for name, tt := range map[string]struct {
		id    string
		after int64
		want  []store.Change
	}{
		"all": {"", 0, want}, "a key's": {"key_1", 0, []store.Change{want[0], want[2]}},
		"after": {"", 1, want[1:]}, "none": {"key_2", 0, nil}, "after the last": {"", 3, nil},
	} {
		var got []store.Change
		view(t, other, func(tx store.Tx) error {
			return tx.History(t.Context(), tt.id, tt.after, func(c *store.Change) error { got = append(got, *c); return nil })
		})
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v instead of %+v", name, got, tt.want)
		}
	}
}

func cancelled(t *testing.T, s, _ store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, name, func(store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.View(ctx, name, func(store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
