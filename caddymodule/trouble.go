package caddymodule

import (
	"sync/atomic"
	"time"
)

// trouble is what went wrong last, for those who come later than its log line.
type trouble struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// lastTrouble keeps it, also once it is mended: its time says how old it is.
type lastTrouble struct{ atomic.Pointer[trouble] }

func (l *lastTrouble) note(msg string, err error) {
	l.Store(&trouble{time.Now(), msg + ": " + err.Error()})
}
