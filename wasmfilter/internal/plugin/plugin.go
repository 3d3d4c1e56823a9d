// Package plugin is Keystile inside of a proxy that speaks proxy-wasm: it
// translates between the proxy, behind a small [Host] interface, and core, which
// decides.
//
// Make a [Plugin] with [New], give it its configuration once with
// [Plugin.Configure], and call [Plugin.Request] for the headers of every request
// and [Plugin.Tick] as often as it asks for it.
package plugin

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Plugin decides requests. Like everything in a proxy-wasm module it belongs to
// one thread.
type Plugin struct {
	host   Host
	config *Config
	guards []*guard   // by name
	hosts  core.Hosts // their verifiers

	// One request at a time, so that its parts are used again.
	request  core.Request
	done     []string // names of lines that were seen to
	response [][2]string

	bodies map[uint32]*body // of requests that are more than their headers

	hurried bool // a tick was asked for at once
}

// guard is one bundle's verifier.
type guard struct {
	name     string
	verifier *core.Verifier
	source   *source // nil where the bundle is in the configuration
	used     *lastUsed
	requests [policy.NumReasons]uint64 // since the last tick
	counters [policy.NumReasons]Counter
	expires  Gauge
	version  Gauge
	keys     Gauge
	inForce  Gauge
	status   string    // logged last
	begun    time.Time // when a bundle was first looked for
}

// tickInterval is how often counters are written out and the verifiers' caches
// do what they put off.
const tickInterval = 100 * time.Millisecond

// New returns a Plugin that denies everything until it is configured.
func New(h Host) *Plugin {
	return &Plugin{host: h, bodies: make(map[uint32]*body)}
}

// Configure takes a configuration over. With an error the proxy must not start,
// or must refuse the update.
func (p *Plugin) Configure(raw []byte) error {
	c, err := parseConfig(raw)
	if err != nil {
		return err
	}
	p.config = c
	for _, name := range slices.Sorted(maps.Keys(c.Bundles)) {
		g, err := p.newGuard(name, c.Bundles[name])
		if err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
		p.guards, p.hosts = append(p.guards, g), append(p.hosts, g.verifier)
	}
	if err := p.host.Tick(uint32(tickInterval.Milliseconds())); err != nil {
		return fmt.Errorf("the proxy gives no ticks: %w", err)
	}
	return nil
}

func (p *Plugin) newGuard(name string, c *BundleConfig) (*guard, error) {
	trust, err := c.trust(name)
	if err != nil {
		return nil, err
	}
	e := &guard{name: name, used: newLastUsed(p.host, name)}
	if e.verifier, err = core.New(c.core()); err != nil {
		return nil, err
	}
	e.define(p.host)
	if len(c.Origins) > 0 {
		e.source, err = newSource(p.host, name, trust, c, p.hurry)
		return e, err
	}
	b, err := c.inline(trust)
	if err != nil {
		return nil, err
	}
	if err := e.use(p.host, b); err != nil {
		return nil, fmt.Errorf("inline: %w", err)
	}
	return e, nil
}

// use activates a bundle.
func (g *guard) use(h Host, b *bundle.Bundle) error {
	if err := g.verifier.Activate(b); err != nil {
		return err
	}
	h.Log(Info, Line("bundle in use", "bundle", g.name, "policy", b.Policy.Name, "version", b.Manifest.Version, "keys", b.Manifest.Keys, "expires", b.Manifest.Expires))
	return nil
}

// hurry asks for a tick at once.
func (p *Plugin) hurry() {
	if !p.hurried {
		p.hurried = p.host.Tick(1) == nil
	}
}

// Tick does what requests leave behind.
func (p *Plugin) Tick() {
	defer func() {
		if v := recover(); v != nil {
			p.host.Log(Error, Line("panic", "error", v))
		}
	}()
	if p.hurried {
		p.hurried = false
		p.host.Tick(uint32(tickInterval.Milliseconds()))
	}
	for _, e := range p.guards {
		e.verifier.Wait()
		if e.source != nil {
			if b := e.source.tick(e.verifier.Bundle()); b != nil {
				if err := e.use(p.host, b); err != nil {
					e.source.refuse(err)
				}
			}
		}
		e.used.tick()
		e.tell(p.host)
	}
}
