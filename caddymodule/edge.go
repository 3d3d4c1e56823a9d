package caddymodule

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/internal/disk"
)

// pollInterval is how often a bundle's file is looked at. A look at a file's state
// and at the notes at its head costs some microseconds and works on every file
// system, for files that are replaced or written over and for those that appear
// later.
const pollInterval = 200 * time.Millisecond

// guard is one verifier with the bundle on disk that feeds it, and what it
// remembers across restarts.
type guard struct {
	name     string
	path     string
	trust    *bundle.Trust
	state    *disk.State // nil where none is kept
	verifier *core.Verifier
	metrics  *guardMetrics
	logger   atomic.Pointer[zap.Logger]
	start    sync.Once
	stop     chan struct{}
	stopped  chan struct{}
	doubts   chan chan struct{} // of requests that could not read a node; closed when the edge has looked

	// Of whoever makes the edge, and then of the watching goroutine alone.
	started  bool
	seen     *disk.Glance // the bundle as it was last looked at
	again    bool         // what was seen was refused, and may be good later
	nextLook time.Time    // at what is to be looked at again
	refusal  string       // logged last
	status   string       // logged last
	unstored *bundle.Mark
	storeErr error     // why it could not be remembered
	nextTry  time.Time // to remember it
	age      aging     // told last
}

// resolved is a [Bundle] with defaults and placeholders filled in. Its JSON form
// names the edge in the pool.
type resolved struct {
	Name    string
	Bundle  Bundle
	Signers []string
	State   string // "" where none is kept
}

func (b *Bundle) resolve(name string) (*resolved, error) {
	c := &resolved{Name: name, Bundle: *b}
	repl := caddy.NewReplacer()
	fill := func(s string) (string, error) { return repl.ReplaceOrErr(s, true, true) }
	var err error
	if b.File == "" {
		return nil, errors.New("it has no file: name the packed file, or the directory, that `caddy keystile bundle build` writes")
	}
	if c.Bundle.File, err = fill(b.File); err != nil {
		return nil, err
	}
	if c.Bundle.File, err = filepath.Abs(c.Bundle.File); err != nil {
		return nil, err
	}
	if c.State, err = b.statePath(name, fill); err != nil {
		return nil, err
	}
	if b.SignerFile != "" {
		if c.Bundle.SignerFile, err = fill(b.SignerFile); err != nil {
			return nil, err
		}
		if c.Signers, err = ReadSigners(c.Bundle.SignerFile); err != nil {
			return nil, fmt.Errorf("signer_file: %w", err)
		}
	}
	for _, s := range b.Signers {
		if s, err = fill(s); err != nil {
			return nil, err
		}
		c.Signers = append(c.Signers, strings.TrimSpace(s))
	}
	if len(c.Signers) == 0 {
		return nil, errors.New("it has no signer: nothing could be believed; `caddy keystile init` prints them")
	}
	if c.Bundle.Threshold == 0 {
		c.Bundle.Threshold = 1
	}
	if c.Bundle.Audience == "" {
		c.Bundle.Audience = bundle.DefaultAudience
	}
	return c, nil
}

// StateOff is the value of `state` with which nothing is kept across restarts.
const StateOff = "off"

func (b *Bundle) statePath(name string, fill func(string) (string, error)) (string, error) {
	switch b.State {
	case StateOff:
		return "", nil
	case "":
		return filepath.Join(caddy.AppDataDir(), "keystile", url.PathEscape(name)+".state"), nil
	}
	path, err := fill(b.State)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// ReadSigners reads a file of verifier keys, one on a line; lines that begin with
// # are comments.
func ReadSigners(path string) (out []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, lines.Err()
}

// newGuard checks the configuration and opens the bundle if it is there. A
// configuration that cannot be right is an error; a bundle that is missing or bad
// is not, since it may be mended while requests are denied. Nothing is written
// before [edge.begin]: `caddy validate` comes here too, maybe as another user.
func newGuard(c *resolved, logger *zap.Logger) (*guard, error) {
	trust, err := bundle.NewTrust(c.Name, c.Bundle.Audience, c.Bundle.Threshold, c.Signers...)
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
	e := &guard{
		name: c.Name, path: c.Bundle.File, trust: trust,
		stop: make(chan struct{}), stopped: make(chan struct{}), doubts: make(chan chan struct{}),
	}
	e.logger.Store(logger)
	if c.State != "" {
		e.state = disk.NewState(c.State, trust)
		switch _, err := e.state.Last(); {
		case errors.Is(err, disk.ErrDropped):
			logger.Error("what this edge remembers cannot be used", logFields(e.name, err)...)
		case err != nil:
			return nil, errState(err)
		}
	}
	if e.verifier, err = core.New(config); err != nil {
		return nil, err
	}
	before := living.find(e.name)
	e.metrics = newGuardMetrics(e)
	found := e.look(false)
	if e.verifier.Bundle() == nil {
		e.resume(before)
	}
	if !found {
		logger.Warn("no bundle yet: every request is denied until it appears", zap.String("bundle", e.name), zap.String("file", e.path))
	}
	return e, nil
}

func errState(err error) error {
	return fmt.Errorf("state: %w: name a place that can be written, or set `state off` and min_version", err)
}

// begin remembers the bundle that is in use and begins to watch for others. It
// does so once, however many configurations use the edge. A place where nothing
// can be kept is refused, unless it is only full, or locked, at present.
func (g *guard) begin() (err error) {
	g.start.Do(func() {
		g.started = true
		if b := g.verifier.Bundle(); b != nil {
			if err = g.remember(&b.Mark); err == nil && g.unstored != nil && !errors.Is(g.storeErr, syscall.ENOSPC) && !errors.Is(g.storeErr, disk.ErrLocked) {
				err = errState(g.storeErr)
			}
		}
		go g.watch()
	})
	return err
}

// Destruct ends the edge when no configuration uses it any more.
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
			g.storeAgain()
			g.watchStatus()
			underWayOf(g.name).end(g.verifier)
			g.watchAge(time.Now())
		}
	}
}

// doubtWait is how long a request waits for the edge to look.
const doubtWait = time.Second

// decide decides a request. Where a node cannot be read, something else may have
// been written over the bundle in use: the edge looks at once, and the request is
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
		g.logger.Load().Error("every request is denied", logFields(g.name, err)...)
	} else {
		g.logger.Load().Info("requests are decided", zap.String("bundle", g.name))
	}
}

// look takes over the bundle if it has changed since the last look, or there is
// doubt that it is what it was. It returns false if there is none.
func (g *guard) look(doubt bool) bool {
	seen, err := disk.Look(g.path)
	if err != nil {
		if g.seen != nil {
			g.logger.Load().Error("the bundle's file is gone: the one in use stays until it expires", logFields(g.name, err)...)
		}
		g.seen = nil
		return false
	}
	same := seen.Same(g.seen)
	if same && !doubt && (!g.again || time.Now().Before(g.nextLook)) {
		return true
	}
	g.seen = seen
	err = g.load()
	g.lookAgain(err)
	refusal := ""
	if err != nil {
		refusal = err.Error()
	}
	if err != nil && !(same && refusal == g.refusal) {
		g.metrics.refuse(err)
		g.logger.Load().Error("a bundle was refused: the one in use stays until it expires", logFields(g.name, err)...)
	}
	g.refusal = refusal
	return true
}

// lookAgain says when the edge looks again at what was refused, though nothing of
// it can be seen to change: at once where the clock, or the disk, was in the way,
// else after a while, since it may have been caught half-written.
func (g *guard) lookAgain(err error) {
	var path *fs.PathError
	g.again, g.nextLook = err != nil, time.Time{}
	if err != nil && !errors.Is(err, bundle.ErrFuture) && !errors.As(err, &path) {
		g.nextLook = time.Now().Add(retryInterval)
	}
}

// load takes the bundle on disk into use. A large packed file stays open as long
// as its bundle is in use, and is closed when that is collected.
func (g *guard) load() error {
	b, source, err := disk.OpenBundle(g.path, g.trust)
	if err != nil {
		return err
	}
	if err := g.use(b); err != nil {
		source.Close()
		return fmt.Errorf("%s: %w", g.path, err)
	}
	return nil
}

// resume takes up what was in use before, where what is on disk cannot be used:
// by the edge of the configuration before this one, or before this start (a
// directory keeps what an earlier bundle needs, also while its notes are being
// replaced). It is verified like any other.
func (g *guard) resume(before *guard) {
	var b *bundle.Bundle
	var err error
	if before != nil && before.path == g.path && before.verifier.Bundle() != nil {
		b, err = before.verifier.Bundle().Under(g.trust)
	} else if g.state != nil {
		b, err = g.fromState()
	}
	if err == nil && b != nil {
		err = g.use(b)
	}
	if err != nil {
		g.logger.Load().Error("the bundle of before cannot be used", logFields(g.name, err)...)
	}
}

func (g *guard) fromState() (*bundle.Bundle, error) {
	last, err := g.state.Last()
	if err != nil || last == nil {
		return nil, nil // that has been told
	}
	source, err := disk.OpenDir(g.path, last.Notes)
	if err != nil {
		return nil, nil // it is no directory, or there is nothing
	}
	return source.Verify(g.trust)
}

// use activates b: after all checks it is remembered, and then used.
func (g *guard) use(b *bundle.Bundle) error {
	if err := g.verifier.Check(b); err != nil {
		return err
	}
	if err := g.remember(&b.Mark); err != nil {
		return err
	}
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

// retryInterval is how long the edge waits before it tries again what failed: to
// remember a bundle, or to read one that was refused.
const retryInterval = 5 * time.Second

// remember raises the state. It refuses what the state refuses; a state that
// cannot be written is no reason to go on with keys that may have been revoked.
func (g *guard) remember(m *bundle.Mark) error {
	if g.state == nil {
		return nil
	}
	if !g.started {
		last, _ := g.state.Last() // an error has been told
		return m.CheckSuccession(last)
	}
	err := g.state.Raise(m)
	if errors.Is(err, bundle.ErrRollback) || errors.Is(err, bundle.ErrForked) {
		return err
	}
	told := err != nil && g.storeErr != nil && err.Error() == g.storeErr.Error()
	g.unstored, g.storeErr, g.nextTry = nil, err, time.Now()
	if err != nil {
		g.unstored = m
	}
	if err != nil && !errors.Is(err, disk.ErrLocked) { // whether it is locked costs nothing to see
		g.nextTry = g.nextTry.Add(retryInterval)
	}
	if err != nil && !told {
		g.logger.Load().Error("the state cannot be written: the bundle is used, and after a restart an older one would be believed", logFields(g.name, err)...)
	}
	g.metrics.degraded.Store(g.unstored != nil)
	return nil
}

// storeAgain tries again what could not be remembered.
func (g *guard) storeAgain() {
	if g.unstored == nil || time.Now().Before(g.nextTry) {
		return
	}
	if err := g.remember(g.unstored); err != nil { // somebody has remembered a later one
		g.unstored = nil
		g.metrics.degraded.Store(false)
	}
	if g.unstored == nil {
		g.logger.Load().Info("the state is written again", zap.String("bundle", g.name))
	}
}

// restrictsIP says whether the policy in use lets keys be limited to addresses.
func (g *guard) restrictsIP() bool {
	b := g.verifier.Bundle()
	return b != nil && b.Policy.Restrictions&policy.RestrictIP != 0
}

// parseAddr reads an address of Go's net package, with or without a port.
func parseAddr(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr()
	}
	addr, _ := netip.ParseAddr(s)
	return addr
}
