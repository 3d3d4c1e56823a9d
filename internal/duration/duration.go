// Package duration reads lengths of time as people write them: in Go's syntax, and
// with d for days.
package duration

import (
	"fmt"
	"strings"
	"time"
)

// Parse reads a length of time; "90d" is 90 days.
func Parse(s string) (time.Duration, error) {
	unit := time.Duration(1)
	parse := s
	days, ok := strings.CutSuffix(s, "d")
	if ok {
		parse, unit = days+"h", 24
	}
	d, err := time.ParseDuration(parse)
	if err != nil || ok && strings.Trim(days, "+-.0123456789") != "" {
		return 0, fmt.Errorf("%q is no length of time: write 90d, 24h or 30s", s)
	}
	if d*unit/unit != d {
		return 0, fmt.Errorf("%q is longer than 290 years: write less, or none for no end", s)
	}
	return d * unit, nil
}
