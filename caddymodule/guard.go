package caddymodule

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// guard is one bundle's verifier with what feeds it and what it remembers. It lives
// across reloads, as long as its configuration does not change.
type guard struct {
	name     string
	trust    *bundle.Trust
	verifier *core.Verifier
	metrics  *guardMetrics
	logger   atomic.Pointer[zap.Logger]
	trouble  atomic.Pointer[trouble]
	maxAge   time.Duration
	start    sync.Once
	stop     chan struct{}
	stopped  chan struct{}
	doubts   chan chan struct{} // of requests that could not read a node; closed when the guard has looked

	sites atomic.Pointer[siteList]

	// Of whoever makes the guard, and then of the watching goroutine alone.
	source *fileSource
	memory *memory
	status string // logged last
	age    aging  // told last

	notServed []string // hosts, told last
}

// newGuard checks the configuration and opens the bundle if it is there. A
// configuration that cannot be right is an error; a bundle that is missing or bad
// is not, since it may be mended while requests are denied. Nothing is written
// before [guard.begin]: `caddy validate` comes here too, maybe as another user.
func newGuard(c *resolved, logger *zap.Logger) (*guard, error) {
	trust, err := bundle.ConfiguredTrust(c.Name, c.Bundle.Audience, c.Bundle.Threshold, c.Signers...)
	if err != nil {
		return nil, err
	}
	config := core.Config{
		RecordCache: c.Bundle.RecordCache, NodeCache: c.Bundle.NodeCache, TokenCache: c.Bundle.TokenCache,
		ClockSkew: time.Duration(c.Bundle.ClockSkew), MaxAge: time.Duration(c.Bundle.MaxAge),
		MinVersion: bundle.MinVersion{Version: c.Bundle.MinVersion, PolicyVersion: c.Bundle.MinPolicyVersion},
	}
	if config.TLSTerminators, err = policy.ParseIPs(c.Bundle.TLSTerminators); err != nil {
		return nil, fmt.Errorf("tls_terminators: %w", err)
	}
	g := &guard{
		name: c.Name, trust: trust, source: &fileSource{path: c.Bundle.File, trust: trust},
		stop: make(chan struct{}), stopped: make(chan struct{}), doubts: make(chan chan struct{}),
	}
	g.logger.Store(logger)
	g.maxAge = config.MaxAge
	if g.memory, err = openMemory(c.State, trust, g.tell); err != nil {
		return nil, err
	}
	if g.verifier, err = core.New(config); err != nil {
		return nil, err
	}
	before := living.find(g.name)
	living.add(g)
	g.metrics = newGuardMetrics(g.name)
	_, refused := g.look(false)
	if g.verifier.Bundle() == nil {
		g.resume(before)
	}
	if g.verifier.Bundle() == nil {
		if errors.Is(refused, bundle.ErrForeign) {
			living.remove(g)
			return nil, errForeign(g.name, refused)
		}
		logger.Warn("no bundle yet: every request is denied until there is one: `caddy keystile bundle build` writes it",
			zap.String("bundle", g.name), zap.String("file", g.source.path))
	}
	return g, nil
}

// errForeign refuses a file that waiting does not mend.
func errForeign(name string, err error) error {
	return fmt.Errorf("%w: every request would be denied; name the file of the bundle %q that `caddy keystile bundle build` writes, "+
		"and the signers and the audience that it was made for (`caddy keystile bundle inspect` shows them)", err, name)
}

// tell logs what went wrong, or with nil that it is right again.
func (g *guard) tell(msg string, err error) {
	if err != nil {
		g.trouble.Store(&trouble{time.Now(), msg + ": " + err.Error()})
		g.logger.Load().Error(msg, zap.String("bundle", g.name), zap.String("file", g.source.path), zap.Error(err))
		return
	}
	g.logger.Load().Info(msg, zap.String("bundle", g.name))
}

// begin remembers the bundle that is in use and begins to watch for others. It
// does so once, however many configurations use the guard.
func (g *guard) begin() (err error) {
	g.start.Do(func() {
		err = g.memory.begin(g.verifier.Bundle())
		go g.watch()
	})
	return err
}

// Destruct ends the guard when no configuration uses it any more.
func (g *guard) Destruct() error {
	close(g.stop)
	g.start.Do(func() { close(g.stopped) }) // it has not begun
	<-g.stopped
	living.remove(g)
	return nil
}

func (g *guard) setLogger(l *zap.Logger) { g.logger.Store(l) }

func (g *guard) watch() {
	defer close(g.stopped)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	doubted := false // since the last tick
	for {
		select {
		case <-g.stop:
			return
		case looked := <-g.doubts:
			if !doubted {
				g.look(true)
			}
			doubted = true
			close(looked)
		case <-ticker.C:
			doubted = false
			g.look(false)
			g.memory.again()
			g.watchStatus()
			underWayOf(g.name).end(g.verifier)
			g.watchAge(time.Now())
			g.watchSites()
			keepLogsRedacted()
		}
	}
}

// doubtWait is how long a request waits for the guard to look.
const doubtWait = time.Second

// decide decides a request. Where a node cannot be read, something else may have
// been written over the bundle in use: the guard looks at once, and the request is
// decided by what it has then.
func (g *guard) decide(r *core.Request) core.Decision {
	d := g.verifier.Verify(r)
	var node *bundle.NodeError
	if d.Err == nil || !errors.As(d.Err, &node) {
		return d
	}
	looked := make(chan struct{})
	timeout := time.NewTimer(doubtWait)
	defer timeout.Stop()
	select {
	case g.doubts <- looked:
		<-looked
	case <-g.stopped:
	case <-timeout.C:
	}
	return g.verifier.Verify(r)
}

// watchStatus says when requests begin to be denied, or cease to be: a bundle
// expires, or the clock jumps.
func (g *guard) watchStatus() {
	status := ""
	err := g.verifier.Status()
	if err != nil {
		status = err.Error()
	}
	if status == g.status {
		return
	}
	g.status = status
	if err != nil {
		// It is what is so, and not what went wrong last: see [guard.tell].
		g.logger.Load().Error("every request is denied", zap.String("bundle", g.name), zap.String("file", g.source.path), zap.Error(err))
	} else {
		g.tell("requests are decided", nil)
	}
}

// look takes over the bundle if it has changed since the last look, or there is doubt
// that it is what it was. found is false if there is none, and err says why one was
// refused.
func (g *guard) look(doubt bool) (found bool, err error) {
	found, err = g.source.look(doubt, g.use)
	var gone goneError
	switch {
	case errors.As(err, &gone):
		g.tell("the bundle's file is gone: the one in use stays until it expires", gone.error)
	case err != nil:
		g.metrics.refuse(err)
		if g.verifier.Bundle() == nil {
			g.tell("a bundle was refused, and none is in use", err)
		} else {
			g.tell("a bundle was refused: the one in use stays until it expires", err)
		}
	}
	return found, err
}

// resume takes up what was in use before, where what the source has cannot be used: by
// the guard of the configuration before this one, or before this start. It is verified
// like any other.
func (g *guard) resume(before *guard) {
	var b *bundle.Bundle
	var err error
	if before != nil && before.source.path == g.source.path && before.verifier.Bundle() != nil {
		b, err = before.verifier.Bundle().Under(g.trust)
	} else if last := g.memory.last(); last != nil {
		b, err = g.source.under(last.Notes)
	}
	if err == nil && b != nil {
		err = g.use(b)
	}
	if err != nil {
		g.tell("the bundle of before cannot be used", err)
	}
}

// use activates b: after all checks it is remembered, and then used.
func (g *guard) use(b *bundle.Bundle) error {
	if err := g.verifier.Check(b); err != nil {
		return err
	}
	if err := g.memory.remember(&b.Mark); err != nil {
		return err
	}
	secrets.with(b.Policy)
	if err := g.verifier.Activate(b); err != nil {
		return err
	}
	g.logger.Load().Info("bundle in use",
		zap.String("bundle", g.name),
		zap.String("policy", b.Policy.Name),
		zap.Int64("version", b.Manifest.Version),
		zap.Uint64("keys", b.Manifest.Keys),
		zap.Time("expires", time.UnixMilli(b.Manifest.Expires)))
	g.watchStatus()
	return nil
}

// restrictsIP says whether the policy in use lets keys be limited to addresses.
func (g *guard) restrictsIP() bool {
	b := g.verifier.Bundle()
	return b != nil && b.Policy.Restrictions&policy.RestrictIP != 0
}
