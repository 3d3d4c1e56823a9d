package duration

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "1.5d": 36 * time.Hour, "24h": 24 * time.Hour, "-1d": -24 * time.Hour, "30s": 30 * time.Second, "0d": 0,
		"106751d": 106751 * 24 * time.Hour,
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "days", "90", "1w", "1h30d", "106752d", "200000d", "-200000d", "99999999999h"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
