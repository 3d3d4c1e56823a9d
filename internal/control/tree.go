package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control/store"
)

// collectAfter is how much longer than edges can want a node it is kept: an edge's
// clock may be behind, and its fetch under way.
const collectAfter = time.Hour

// edits is a transaction that notes which keys it changes.
type edits struct {
	store.Tx
	ids []string
}

func (e *edits) Insert(ctx context.Context, k *Key) error {
	e.ids = append(e.ids, k.ID)
	return e.Tx.Insert(ctx, k)
}

func (e *edits) SetStatus(ctx context.Context, id, status string, expires, revoked *time.Time) error {
	e.ids = append(e.ids, id)
	return e.Tx.SetStatus(ctx, id, status, expires, revoked)
}

// nodesOf gives nodes by a function.
type nodesOf func(bundle.Hash) ([]byte, error)

func (f nodesOf) Node(h bundle.Hash) ([]byte, error) { return f(h) }

// growth is the key tree of the next version, and how the store comes to it.
type growth struct {
	publisher *Publisher
	tx        *edits
	note      *bundle.Publication
	before    store.LastSigned
	wanted    int64 // until when edges may want the nodes of before, in Unix milliseconds
	fresh     bundle.Nodes
}

// tree makes the store's tree that of its keys. Usually that is a walk down to the
// keys that were changed; all is written anew where whole says so, where the note
// is a new one, which may not allow what is there, and where the store does not
// have the tree of before.
func (g *growth) tree(ctx context.Context, whole bool) (tree bundle.Tree, err error) {
	if _, err := g.tx.CollectNodes(ctx, g.publisher.bundle.home.now().Add(-collectAfter).UnixMilli()); err != nil {
		return tree, err
	}
	if _, err := g.tx.Node(ctx, g.before.Tree.Root); errors.Is(err, store.ErrNoNode) {
		whole = true
	} else if err != nil {
		return tree, err
	}
	if !whole && slices.Equal(g.note.Notes.PolicyNote, g.before.PolicyNote) {
		tree, err = g.update(ctx)
		var node *bundle.NodeError
		if !errors.As(err, &node) {
			return tree, err
		}
	}
	return g.build(ctx)
}

// update changes the tree of before along the paths of the keys that were changed.
func (g *growth) update(ctx context.Context) (tree bundle.Tree, err error) {
	slices.Sort(g.tx.ids)
	var changes []bundle.Edit
	for _, id := range slices.Compact(g.tx.ids) {
		k, err := g.tx.Get(ctx, id)
		if err != nil {
			return tree, err
		}
		r, err := k.Record()
		if err != nil {
			return tree, err
		}
		changes = append(changes, bundle.Edit{Record: r})
	}
	return g.note.Update(g.before.Tree, nodesOf(func(h bundle.Hash) ([]byte, error) { return g.tx.Node(ctx, h) }), changes,
		func(h bundle.Hash, node []byte) error { return g.put(ctx, h, node) },
		func(h bundle.Hash) error { return g.tx.DropNode(ctx, h, g.wanted) })
}

// build builds the tree of all keys.
func (g *growth) build(ctx context.Context) (tree bundle.Tree, err error) {
	var records []bundle.Record
	if err := g.tx.Each(ctx, func(k *Key) error {
		r, err := k.Record()
		if err == nil {
			err = g.note.Permits(&r)
		}
		records = append(records, r)
		return err
	}); err != nil {
		return tree, err
	}
	if err := g.tx.DropNodes(ctx, g.wanted); err != nil {
		return tree, err
	}
	return bundle.Build(records, func(h bundle.Hash, node []byte) error { return g.put(ctx, h, node) })
}

func (g *growth) put(ctx context.Context, h bundle.Hash, node []byte) error {
	if err := g.fresh.Add(h, node); err != nil {
		return err
	}
	return g.tx.PutNode(ctx, h, node)
}

// nodes calls use with every node of a tree, in its order: those that were just made,
// which nobody else sees before the commit, and those that the store had.
func (g *growth) nodes(ctx context.Context, tree bundle.Tree, use func(bundle.Hash, []byte) error) error {
	err := g.publisher.bundle.view(ctx, func(kept store.Tx) error {
		return g.note.Nodes(tree, nodesOf(func(h bundle.Hash) ([]byte, error) {
			if node, err := g.fresh.Node(h); err == nil {
				return node, nil
			}
			return kept.Node(ctx, h)
		}), use)
	})
	var node *bundle.NodeError
	if errors.As(err, &node) {
		return fmt.Errorf("the key store has lost a part of the key tree: `caddy keystile bundle build` makes it anew from the keys: %w", err)
	}
	return err
}
