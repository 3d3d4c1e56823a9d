package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/keystile/keystile/internal/control/store"
)

// Every change of a key is in the history of it, with who made it; what changes
// nothing is not.
func TestHistory(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	k, _ := create(t, b, NewKey{})
	ann := store.WithActor(ctx, store.Actor{Who: "ann", From: "desk"})
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	next, err := b.Keyring().Roll(ann, k.ID, Roll{End: &end})
	noError(t, err)
	for range 2 {
		_, err = b.Keyring().Revoke(ann, k.ID)
		noError(t, err)
	}
	for id, want := range map[string][]string{
		k.ID: {
			"key.created {Who: From:} secret, live",
			"key.rolled {Who:ann From:desk} replaced by " + next.ID + ", works until " + end.Format(time.RFC3339),
			"key.revoked {Who:ann From:desk} ",
		},
		next.ID: {"key.created {Who:ann From:desk} secret, live, replaces " + k.ID},
	} {
		changes, err := b.Keyring().History(ctx, id)
		noError(t, err)
		var got []string
		for _, c := range changes {
			got = append(got, fmt.Sprintf("%s %+v %s", c.Action, c.Actor, c.Detail))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q instead of %q", id, got, want)
		}
	}
	all, err := b.Keyring().History(ctx, "")
	noError(t, err)
	if len(all) != 5 || all[0].Action != policyPublished || all[0].Key != "" {
		t.Errorf("%d entries, the first is %+v", len(all), all[0])
	}
}

// What is restored from a published bundle is in the history too.
func TestHistoryOfARestore(t *testing.T) {
	b := initBundle(t, open(t, t.TempDir()), "default")
	b.home.Close()
	putBack := copyOf(t, b, storeFiles(b.home.dir)[0])
	b = reopen(t, b, func(string) {})
	k, _ := create(t, b, NewKey{})
	b = reopen(t, b, putBack)
	_, err := b.Keyring().Restore(ctx, "")
	noError(t, err)
	changes, err := b.Keyring().History(ctx, k.ID)
	noError(t, err)
	if len(changes) != 1 || changes[0].Action != keyRestored || changes[0].Detail != "secret, live, active" {
		t.Errorf("%+v", changes)
	}
}
