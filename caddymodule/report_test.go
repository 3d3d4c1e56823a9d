package caddymodule

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// What went wrong last is the bundle that was refused, and not that there is none in use
// therefore.
func TestLastTrouble(t *testing.T) {
	p, dir := newPublisher(t), t.TempDir()
	p.write(dir, p.pack(time.Now().Add(time.Hour), nil)) // signed by a clock that is ahead
	g, err := newGuard(&resolved{
		Name: "shop", Bundle: Bundle{File: filepath.Join(dir, "shop.keystile")}, Signers: []string{p.Policy.Key},
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer p.end(g)
	g.watchStatus()
	r := g.report()
	if r.Ready || r.Why != "no bundle is active" || r.LastError == nil || !strings.HasPrefix(r.LastError.Text, "a bundle was refused") {
		t.Errorf("%+v %+v", r, r.LastError)
	}
}
