package caddymodule

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// pollInterval is how often a bundle's file is looked at. Looking at a file's
// state costs a microsecond and works on every file system, for files that are
// replaced and for those that appear later.
const pollInterval = 200 * time.Millisecond

// edge is one verifier with the file that feeds it.
type edge struct {
	name     string
	path     string
	trust    *bundle.Trust
	verifier *core.Verifier
	metrics  *edgeMetrics
	logger   atomic.Pointer[zap.Logger]
	stop     chan struct{}
	stopped  chan struct{}
	seen     os.FileInfo // the file as it was last looked at
}

// resolved is a [Bundle] with defaults and placeholders filled in. Its JSON form
// names the edge in the pool.
type resolved struct {
	Name    string
	Bundle  Bundle
	Signers []string
}

func (b *Bundle) resolve(name string) (*resolved, error) {
	c := &resolved{Name: name, Bundle: *b}
	repl := caddy.NewReplacer()
	fill := func(s string) (string, error) { return repl.ReplaceOrErr(s, true, true) }
	var err error
	if b.File == "" {
		return nil, errors.New("it has no file: name the packed file that `caddy keystile bundle build` writes")
	}
	if c.Bundle.File, err = fill(b.File); err != nil {
		return nil, err
	}
	if c.Bundle.File, err = filepath.Abs(c.Bundle.File); err != nil {
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
		c.Bundle.Audience = DefaultAudience
	}
	return c, nil
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

// newEdge checks the configuration, opens the bundle if it is there, and begins
// to watch its file. A configuration that cannot be right is an error; a bundle
// that is missing or bad is not, since it may be mended while requests are
// denied.
func newEdge(c *resolved, logger *zap.Logger) (*edge, error) {
	trust, err := bundle.NewTrust(c.Name, c.Bundle.Audience, c.Bundle.Threshold, c.Signers...)
	if err != nil {
		return nil, err
	}
	config := core.Config{
		RecordCache: c.Bundle.RecordCache, NodeCache: c.Bundle.NodeCache, TokenCache: c.Bundle.TokenCache,
		ClockSkew: time.Duration(c.Bundle.ClockSkew), MaxAge: time.Duration(c.Bundle.MaxAge),
	}
	for _, s := range c.Bundle.TLSTerminators {
		p, err := policy.ParseIP(s)
		if err != nil {
			return nil, fmt.Errorf("tls_terminators: %w", err)
		}
		config.TLSTerminators = append(config.TLSTerminators, p)
	}
	e := &edge{
		name: c.Name, path: c.Bundle.File, trust: trust, metrics: newEdgeMetrics(c.Name),
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	e.logger.Store(logger)
	if e.verifier, err = core.New(config); err != nil {
		return nil, err
	}
	if !e.look() {
		logger.Warn("no bundle yet: every request is denied until its file appears", zap.String("bundle", e.name), zap.String("file", e.path))
	}
	go e.watch()
	return e, nil
}

// Destruct ends the edge when no configuration uses it any more.
func (e *edge) Destruct() error {
	close(e.stop)
	<-e.stopped
	e.verifier.Close()
	return nil
}

func (e *edge) setLogger(l *zap.Logger) { e.logger.Store(l) }

func (e *edge) watch() {
	defer close(e.stopped)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-ticker.C:
			e.look()
		}
	}
}

// look takes over the file if it has changed since the last look. It returns
// false if there is no file.
func (e *edge) look() bool {
	info, err := os.Stat(e.path)
	if err != nil {
		if e.seen != nil {
			e.logger.Load().Error("the bundle's file is gone: the one in use stays until it expires", logFields(e.name, err)...)
		}
		e.seen = nil
		return false
	}
	if e.seen != nil && os.SameFile(e.seen, info) && e.seen.ModTime().Equal(info.ModTime()) && e.seen.Size() == info.Size() {
		return true
	}
	e.seen = info
	if err := e.load(); err != nil {
		e.metrics.refused.Inc()
		e.logger.Load().Error("a bundle was refused: the one in use stays until it expires", logFields(e.name, err)...)
	}
	return true
}

// load opens the file and activates its bundle. The file stays open as long as
// the bundle is in use, and is closed when that is collected.
func (e *edge) load() error {
	f, err := os.Open(e.path)
	if err != nil {
		return err
	}
	b, err := e.open(f)
	if err == nil {
		err = e.verifier.Activate(b)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", e.path, err)
	}
	e.metrics.version.Set(float64(b.Manifest.Version) / 1000)
	e.metrics.expires.Set(float64(b.Manifest.Expires) / 1000)
	e.metrics.keys.Set(float64(b.Manifest.Keys))
	e.logger.Load().Info("bundle in use",
		zap.String("bundle", e.name),
		zap.String("policy", b.Policy.Name),
		zap.Int64("version", b.Manifest.Version),
		zap.Uint64("keys", b.Manifest.Keys),
		zap.Time("expires", time.UnixMilli(b.Manifest.Expires)))
	if err := e.verifier.Status(); err != nil {
		e.logger.Load().Error("every request is denied", logFields(e.name, err)...)
	}
	return nil
}

func (e *edge) open(f *os.File) (*bundle.Bundle, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	pack, err := bundle.OpenPack(f, info.Size())
	if err != nil {
		return nil, err
	}
	return bundle.Open(pack.Notes, pack.Compiled, pack, e.trust)
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
