package plugin

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

// notes are those that a bundle's directory has.
// count is how many lines of the log hold a text.
func (f *fake) count(text string) (n int) {
	for _, l := range f.log {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

// A worker whose clock was an hour ahead has left a lease: the others do not wait
// for its end, nor does that worker for what it has put off itself.
func TestClockSetBack(t *testing.T) {
	b, _ := shop(t)
	s := newShared()
	one := newWorker(t, s, b)
	right := one.now
	one.tick(time.Hour)
	if len(one.calls) != 1 {
		t.Fatalf("%d calls", len(one.calls))
	}
	one.source().failed = one.now
	one.calls, one.now = nil, right
	two := newWorker(t, s, b)
	two.now = right
	for again := range 3 {
		asked := 0
		for range 20 {
			for _, w := range []*worker{one, two} {
				w.tick(time.Second)
				asked += len(w.calls)
				w.serve(t, b.Directory)
			}
		}
		// Every 5 to 6.25 seconds, by one of them.
		if asked < 3 || asked > 12 {
			t.Errorf("%d: after the clock was set back it was asked %d times in 20 seconds", again, asked)
		}
		for i, w := range []*worker{one, two} {
			if told := w.count("further ahead"); told > 1 {
				t.Errorf("worker %d tells it %d times", i, told)
			}
		}
		s.data[one.source().leaseKey] = binary.BigEndian.AppendUint64(nil, uint64(one.now.Add(time.Hour).UnixMilli()))
	}
	if one.count("further ahead")+two.count("further ahead") == 0 {
		t.Error("it is not told")
	}
	for i, w := range []*worker{one, two} {
		if w.guards[0].verifier.Bundle() == nil {
			t.Errorf("worker %d has no bundle: %q", i, w.fake.log)
		}
	}
	used := newLastUsed(newFake(s), "shop")
	used.now, used.flushed = func() time.Time { return right }, right.Add(time.Hour)
	used.note("key_a")
	if used.tick(); len(used.seen) != 0 {
		t.Error("when keys were last used is not shared until the clock is there again")
	}
}

func TestPast(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		since time.Time
		want  bool
	}{
		"never": {time.Time{}, true}, "now": {now, false}, "nearly": {now.Add(-59 * time.Second), false},
		"just": {now.Add(-time.Minute), true}, "set back": {now.Add(time.Millisecond), true},
	} {
		if got := past(now, tt.since, time.Minute); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What is found may follow what was found before, and is not of the future by the
// clock skew that is configured.
// What all workers share is only ever raised.
// After a failure no origin is asked by the entity tag of another's answer.
// A bundle that is refused is not opened again at every tick.
// It is ready when its bundle is in force, and not before.
// Limits of keys to addresses are about the connection's other end; an address from
// X-Forwarded-For, which has no port, counts only where that is configured.
// Every line of the log is a text and a JSON object, whatever is in it.
