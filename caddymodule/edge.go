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

// edge is one verifier with the bundle on disk that feeds it, and what it
// remembers across restarts.
type edge struct {
	name     string
	path     string
	trust    *bundle.Trust
	state    *disk.State // nil where none is kept
	verifier *core.Verifier
	metrics  *edgeMetrics
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

// newEdge checks the configuration and opens the bundle if it is there. A
// configuration that cannot be right is an error; a bundle that is missing or bad
// is not, since it may be mended while requests are denied. Nothing is written
// before [edge.begin]: `caddy validate` comes here too, maybe as another user.
func newEdge(c *resolved, logger *zap.Logger) (*edge, error) {
	trust, err := bundle.NewTrust(c.Name, c.Bundle.Audience, c.Bundle.Threshold, c.Signers...)
	if err != nil {
		return nil, err
	}
	config := core.Config{
		RecordCache: c.Bundle.RecordCache, NodeCache: c.Bundle.NodeCache, TokenCache: c.Bundle.TokenCache,
		ClockSkew: time.Duration(c.Bundle.ClockSkew), MaxAge: time.Duration(c.Bundle.MaxAge),
		Floor: bundle.Floor{Version: c.Bundle.MinVersion, PolicyVersion: c.Bundle.MinPolicyVersion},
	}
	if config.TLSTerminators, err = policy.ParseIPs(c.Bundle.TLSTerminators); err != nil {
		return nil, fmt.Errorf("tls_terminators: %w", err)
	}
	e := &edge{
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
	e.metrics = newEdgeMetrics(e)
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
func (e *edge) begin() (err error) {
	e.start.Do(func() {
		e.started = true
		if b := e.verifier.Bundle(); b != nil {
			if err = e.remember(&b.Mark); err == nil && e.unstored != nil && !errors.Is(e.storeErr, syscall.ENOSPC) && !errors.Is(e.storeErr, disk.ErrLocked) {
				err = errState(e.storeErr)
			}
		}
		go e.watch()
	})
	return err
}

// Destruct ends the edge when no configuration uses it any more.
func (e *edge) Destruct() error {
	close(e.stop)
	e.start.Do(func() { close(e.stopped) }) // it has not begun
	<-e.stopped
	living.remove(e)
	return nil
}

func (e *edge) setLogger(l *zap.Logger) { e.logger.Store(l) }

func (e *edge) watch() {
	defer close(e.stopped)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	doubted := false // since the last tick
	for {
		select {
		case <-e.stop:
			return
		case looked := <-e.doubts:
			if !doubted {
				e.look(true)
			}
			doubted = true
			close(looked)
		case <-ticker.C:
			doubted = false
			e.look(false)
			e.storeAgain()
			e.watchStatus()
			underWayOf(e.name).end(e.verifier)
			e.watchAge(time.Now())
		}
	}
}

// doubtWait is how long a request waits for the edge to look.
const doubtWait = time.Second

// decide decides a request. Where a node cannot be read, something else may have
// been written over the bundle in use: the edge looks at once, and the request is
// decided by what it has then.
func (e *edge) decide(r *core.Request) core.Decision {
	d := e.verifier.Verify(r)
	var node *bundle.NodeError
	if d.Err == nil || !errors.As(d.Err, &node) {
		return d
	}
	looked := make(chan struct{})
	timeout := time.NewTimer(doubtWait)
	defer timeout.Stop()
	select {
	case e.doubts <- looked:
		<-looked
	case <-e.stopped:
	case <-timeout.C:
	}
	return e.verifier.Verify(r)
}

// watchStatus says when requests begin to be denied, or cease to be: a bundle
// expires, or the clock jumps.
func (e *edge) watchStatus() {
	status := ""
	err := e.verifier.Status()
	if err != nil {
		status = err.Error()
	}
	if status == e.status {
		return
	}
	e.status = status
	if err != nil {
		e.logger.Load().Error("every request is denied", logFields(e.name, err)...)
	} else {
		e.logger.Load().Info("requests are decided", zap.String("bundle", e.name))
	}
}

// look takes over the bundle if it has changed since the last look, or there is
// doubt that it is what it was. It returns false if there is none.
func (e *edge) look(doubt bool) bool {
	seen, err := disk.Look(e.path)
	if err != nil {
		if e.seen != nil {
			e.logger.Load().Error("the bundle's file is gone: the one in use stays until it expires", logFields(e.name, err)...)
		}
		e.seen = nil
		return false
	}
	same := seen.Same(e.seen)
	if same && !doubt && (!e.again || time.Now().Before(e.nextLook)) {
		return true
	}
	e.seen = seen
	err = e.load()
	e.lookAgain(err)
	refusal := ""
	if err != nil {
		refusal = err.Error()
	}
	if err != nil && !(same && refusal == e.refusal) {
		e.metrics.refuse(err)
		e.logger.Load().Error("a bundle was refused: the one in use stays until it expires", logFields(e.name, err)...)
	}
	e.refusal = refusal
	return true
}

// lookAgain says when the edge looks again at what was refused, though nothing of
// it can be seen to change: at once where the clock, or the disk, was in the way,
// else after a while, since it may have been caught half-written.
func (e *edge) lookAgain(err error) {
	var path *fs.PathError
	e.again, e.nextLook = err != nil, time.Time{}
	if err != nil && !errors.Is(err, bundle.ErrFuture) && !errors.As(err, &path) {
		e.nextLook = time.Now().Add(retryInterval)
	}
}

// load takes the bundle on disk into use. A large packed file stays open as long
// as its bundle is in use, and is closed when that is collected.
func (e *edge) load() error {
	b, source, err := disk.OpenBundle(e.path, e.trust)
	if err != nil {
		return err
	}
	if err := e.use(b); err != nil {
		source.Close()
		return fmt.Errorf("%s: %w", e.path, err)
	}
	return nil
}

// resume takes up what was in use before, where what is on disk cannot be used:
// by the edge of the configuration before this one, or before this start (a
// directory keeps what an earlier bundle needs, also while its notes are being
// replaced). It is verified like any other.
func (e *edge) resume(before *edge) {
	var b *bundle.Bundle
	var err error
	if before != nil && before.path == e.path && before.verifier.Bundle() != nil {
		b, err = before.verifier.Bundle().Under(e.trust)
	} else if e.state != nil {
		b, err = e.fromState()
	}
	if err == nil && b != nil {
		err = e.use(b)
	}
	if err != nil {
		e.logger.Load().Error("the bundle of before cannot be used", logFields(e.name, err)...)
	}
}

func (e *edge) fromState() (*bundle.Bundle, error) {
	last, err := e.state.Last()
	if err != nil || last == nil {
		return nil, nil // that has been told
	}
	source, err := disk.OpenDir(e.path, last.Notes)
	if err != nil {
		return nil, nil // it is no directory, or there is nothing
	}
	return source.Verify(e.trust)
}

// use activates b: after all checks it is remembered, and then used.
func (e *edge) use(b *bundle.Bundle) error {
	if err := e.verifier.Check(b); err != nil {
		return err
	}
	if err := e.remember(&b.Mark); err != nil {
		return err
	}
	if err := e.verifier.Activate(b); err != nil {
		return err
	}
	e.logger.Load().Info("bundle in use",
		zap.String("bundle", e.name),
		zap.String("policy", b.Policy.Name),
		zap.Int64("version", b.Manifest.Version),
		zap.Uint64("keys", b.Manifest.Keys),
		zap.Time("expires", time.UnixMilli(b.Manifest.Expires)))
	e.watchStatus()
	return nil
}

// retryInterval is how long the edge waits before it tries again what failed: to
// remember a bundle, or to read one that was refused.
const retryInterval = 5 * time.Second

// remember raises the state. It refuses what the state refuses; a state that
// cannot be written is no reason to go on with keys that may have been revoked.
func (e *edge) remember(m *bundle.Mark) error {
	if e.state == nil {
		return nil
	}
	if !e.started {
		last, _ := e.state.Last() // an error has been told
		return m.CheckSuccession(last)
	}
	err := e.state.Raise(m)
	if errors.Is(err, bundle.ErrRollback) || errors.Is(err, bundle.ErrForked) {
		return err
	}
	told := err != nil && e.storeErr != nil && err.Error() == e.storeErr.Error()
	e.unstored, e.storeErr, e.nextTry = nil, err, time.Now()
	if err != nil {
		e.unstored = m
	}
	if err != nil && !errors.Is(err, disk.ErrLocked) { // whether it is locked costs nothing to see
		e.nextTry = e.nextTry.Add(retryInterval)
	}
	if err != nil && !told {
		e.logger.Load().Error("the state cannot be written: the bundle is used, and after a restart an older one would be believed", logFields(e.name, err)...)
	}
	e.metrics.degraded.Store(e.unstored != nil)
	return nil
}

// storeAgain tries again what could not be remembered.
func (e *edge) storeAgain() {
	if e.unstored == nil || time.Now().Before(e.nextTry) {
		return
	}
	if err := e.remember(e.unstored); err != nil { // somebody has remembered a later one
		e.unstored = nil
		e.metrics.degraded.Store(false)
	}
	if e.unstored == nil {
		e.logger.Load().Info("the state is written again", zap.String("bundle", e.name))
	}
}

// restrictsIP says whether the policy in use lets keys be limited to addresses.
func (e *edge) restrictsIP() bool {
	b := e.verifier.Bundle()
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
