package plugin

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"
)

// When a key was last used is kept in batches, for a control plane to fetch: each
// worker notes its own, and once a minute adds them to what all share, as lines of a
// key ID and Unix seconds. Nothing of it decides anything.

// Bounds of what is kept.
const (
	usedInterval = time.Minute
	maxUsed      = 10_000 // keys; those used last stay
)

type lastUsed struct {
	host    Host
	name    string
	now     func() time.Time
	seen    map[string]int64 // key ID → Unix seconds
	flushed time.Time
}

func newLastUsed(h Host, name string) *lastUsed {
	return &lastUsed{host: h, name: name, now: time.Now, seen: make(map[string]int64), flushed: time.Now()}
}

func (u *lastUsed) sharedKey() string { return "keystile.used." + u.name }

// note notes that a key is used now.
func (u *lastUsed) note(id string) {
	if _, known := u.seen[id]; known || len(u.seen) < maxUsed {
		u.seen[id] = u.now().Unix()
	}
}

// tick adds the batch to what is shared, if it is time.
func (u *lastUsed) tick() {
	now := u.now()
	if !past(now, u.flushed, usedInterval) || len(u.seen) == 0 {
		return
	}
	u.flushed = now
	raw, cas, _ := u.host.SharedData(u.sharedKey()) // nothing yet is no error
	for line := range bytes.Lines(raw) {
		var id string
		var at int64
		if n, err := fmt.Sscan(string(line), &id, &at); n == 2 && err == nil && at > u.seen[id] {
			u.seen[id] = at
		}
	}
	type use struct {
		id string
		at int64
	}
	all := make([]use, 0, len(u.seen))
	for id, at := range u.seen {
		all = append(all, use{id, at})
	}
	slices.SortFunc(all, func(a, b use) int { return cmp.Or(cmp.Compare(b.at, a.at), cmp.Compare(a.id, b.id)) })
	var out []byte
	for _, k := range all[:min(len(all), maxUsed)] {
		out = fmt.Appendf(out, "%s %d\n", k.id, k.at)
	}
	if u.host.SetSharedData(u.sharedKey(), out, cas) == nil {
		clear(u.seen)
	}
}
