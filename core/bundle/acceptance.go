package bundle

import (
	"errors"
	"time"
)

// Acceptance is what an edge demands of a bundle before it takes it over, beside good
// signatures.
type Acceptance struct {
	// MinVersion is the lowest bundle that is accepted.
	MinVersion MinVersion
	// ClockSkew is how far the publisher's clock and this one may differ.
	ClockSkew time.Duration
}

// Check says why m cannot be taken over at now, by an edge that has last: it is below
// the lowest version, older than last, of the same version with another text, or signed
// in the future ([ErrRollback], [ErrForked], [ErrFuture]). last is nil where nothing was
// accepted before. One that has expired can, and then denies everything.
func (a *Acceptance) Check(m, last *Mark, now time.Time) error {
	if err := a.MinVersion.Check(m); err != nil {
		return err
	}
	if err := m.CheckSuccession(last); err != nil {
		return err
	}
	if err := m.CheckTime(now, a.ClockSkew, 0); errors.Is(err, ErrFuture) {
		return err
	}
	return nil
}
