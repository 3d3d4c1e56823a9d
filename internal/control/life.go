package control

import (
	"fmt"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/duration"
)

// Life is how long a signed bundle is good unless it is renewed. Its text is that
// of a length of time: 24h, 7d.
type Life time.Duration

// minLife leaves room for two renewals, every five minutes.
const minLife = 10 * time.Minute

// MarshalText writes the length of time.
func (l Life) MarshalText() ([]byte, error) { return []byte(time.Duration(l).String()), nil }

// UnmarshalText reads a length of time and refuses one that edges would refuse.
func (l *Life) UnmarshalText(text []byte) error {
	d, err := duration.Parse(string(text))
	if err != nil {
		return fmt.Errorf("life: %w", err)
	}
	if d < minLife || d > bundle.MaxLife {
		return fmt.Errorf("life %s: a bundle lives for %s to %s, and is renewed before", text, minLife, bundle.MaxLife)
	}
	*l = Life(d)
	return nil
}
