package command

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
)

// What people are told of a bundle's life.
func TestLifeOf(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		gone    time.Duration
		inspect string
		renew   string // "" for no warning
	}{
		"new":      {0, "24h0m0s of its life of 24h0m0s are left.", ""},
		"half":     {12 * time.Hour, "12h0m0s of its life of 24h0m0s are left: is ", "12h0m0s of the bundle's 24h0m0s were left"},
		"the last": {23 * time.Hour, "1h0m0s of its life of 24h0m0s are left: is ", "1h0m0s of the bundle's 24h0m0s were left"},
		"over":     {25 * time.Hour, "It has expired, and every request is denied", "the bundle had expired 1h0m0s before"},
	} {
		signed := now.Add(-tt.gone)
		b := &bundle.Bundle{Mark: bundle.Mark{Manifest: bundle.Manifest{
			Version: signed.UnixMilli(), Expires: signed.Add(bundle.DefaultLife).UnixMilli(),
		}}}
		if got := lifeOf(b, now); !strings.HasPrefix(got, tt.inspect) {
			t.Errorf("%s: %s", name, got)
		}
		var out bytes.Buffer
		r := renewer{cmd: &cobra.Command{}}
		r.cmd.SetErr(&out)
		r.late(b, now)
		if got := out.String(); !strings.Contains(got, tt.renew) || (got == "") != (tt.renew == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
