// Package policy holds what an API promises about its keys, in the compiled
// form that edges decide by: sources, kinds, environments and their hosts,
// routes, scopes, the customer token and the answer for every reason.
//
// An edge gets a policy by [Decode] from a bundle, verified before; the control
// plane gets it from YAML by core/policy/compile and writes it with
// [Policy.Encode]. A Policy is immutable after either and safe for concurrent
// use.
package policy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/shape"
)

// Policy is a compiled policy. Its fields are only read; [Policy.Init] has
// checked that they fit together.
type Policy struct {
	// Name is the API's name, as in a challenge's realm.
	Name string
	// Sources are the header fields that may carry the API key.
	Sources []credential.Source
	// Imported accepts keys that another system made: no checksum.
	Imported bool
	// Kinds and Environments are what a key's prefix can mean.
	Kinds        []Kind
	Environments []string
	// Hosts are the host names served, with the environments whose keys work
	// there. With no entry, every host is served for every environment.
	Hosts []Host
	// Routes are the requests that keys can make.
	Routes []Route
	// UnroutedKinds are answered "no_route" where no route matches; any other
	// kind is answered "kind".
	UnroutedKinds Set
	// Restrictions are those that the control plane lets a key carry.
	Restrictions Restrictions
	// CustomerToken is the customer token that some routes demand, or nil.
	CustomerToken *CustomerToken
	// Identity names the header fields that tell the upstream who calls.
	Identity Identity
	// Answers has what each reason answers.
	Answers [NumReasons]Answer
	// Grants is what the control plane needs when it makes a key.
	Grants Grants

	grammar *credential.Grammar
	router  router
	headers *fieldNames
}

// Kind is one kind of key: what a policy lets a key's prefix mean.
type Kind struct {
	Name   string
	Prefix string
	// IDPrefix begins the key IDs of this kind: "key" gives "key_…".
	IDPrefix string
	// Scoped keys do only what their scopes permit; others need none.
	Scoped bool
	// Public keys may be shown again after creation.
	Public bool
	// Limit is the default rate limit of keys of this kind.
	Limit Limit
}

// Limit is a number of requests in a window; the zero value is no limit.
type Limit struct {
	Requests uint64
	Window   time.Duration // whole seconds
}

// Host is a served host name with its environments.
type Host struct {
	Name         string // canonical: lower case, no trailing dot, no default port
	Environments Set    // indexes into Policy.Environments
}

// Set is a set of small indexes.
type Set uint32

// maxSet is how many kinds, and how many environments, a policy may have.
const maxSet = 32

// Has says whether i is in s.
func (s Set) Has(i int) bool { return s&(1<<i) != 0 }

// With returns s with i.
func (s Set) With(i int) Set { return s | 1<<i }

// All is the set of the first n indexes.
func All(n int) Set { return Set(1<<n - 1) }

// Restrictions is a set of the ways in which one key can be narrowed.
type Restrictions uint8

// The restrictions.
const (
	RestrictIP Restrictions = 1 << iota
	RestrictReferrer
	RestrictEndpoint
)

// Route is a set of requests that are treated alike.
type Route struct {
	Name     string
	Patterns []string // in the syntax of net/http, without method and host
	Methods  shape.MethodSet
	Public   bool // needs no key
	CORS     bool // the edge answers preflights
	Kinds    Set  // that may call it; any other is answered "kind"
	// TenantParam names the path parameter that must be the key's tenant.
	TenantParam string
	// Token says that the customer token is demanded.
	Token bool
	// OnlyUnlimited refuses keys with any restriction, as "scope".
	OnlyUnlimited bool
	// Demands is what a scoped key needs, by method.
	Demands [shape.NumMethods]Demand
}

// Demand is what a route asks of a scoped key. The zero value is a demand that
// no key meets.
type Demand struct {
	// Free needs no scope.
	Free bool
	// OwnKey names the path parameter that must be the key's own ID; scopes
	// are not asked then.
	OwnKey string
	// Scopes are needed all.
	Scopes []ScopeDemand
}

// Identity names the header fields set on an allowed request; "" sets none.
type Identity struct {
	KeyID, Kind, Environment, Tenant, Scopes, Deprecated, Customer string
}

// DefaultIdentity are the names unless a policy gives others.
var DefaultIdentity = Identity{
	"Keystile-Key-Id", "Keystile-Kind", "Keystile-Environment", "Keystile-Tenant",
	"Keystile-Scopes", "Keystile-Deprecated", "Keystile-Customer",
}

func (id *Identity) list() []*string {
	return []*string{&id.KeyID, &id.Kind, &id.Environment, &id.Tenant, &id.Scopes, &id.Deprecated, &id.Customer}
}

// Repeated is a name that stands for two things, or "".
func (id *Identity) Repeated() string {
	list := id.list()
	for i, name := range list {
		for _, other := range list[:i] {
			if *name != "" && SameField(*name, *other) {
				return *name
			}
		}
	}
	return ""
}

// Grants is what the control plane checks when it makes a key. Edges do not
// read it: what they enforce is in the routes.
type Grants struct {
	// Scopes are the names that can be granted, where {…} stands for any name.
	Scopes []string
	// Never are names out of Scopes that are refused all the same.
	Never []string
	// Min and Max bound the number of scopes of a scoped key; Max 0 is no bound.
	Min, Max int
	// Rotate is the age from which a key is flagged for rotation, 0 for never.
	Rotate time.Duration
	// TenantRequired refuses a key without a tenant.
	TenantRequired bool
}

// Grammar is the grammar of the policy's keys.
func (p *Policy) Grammar() *credential.Grammar { return p.grammar }

// KindIndex returns the index of the kind called name, or -1.
func (p *Policy) KindIndex(name string) int {
	return slices.IndexFunc(p.Kinds, func(k Kind) bool { return k.Name == name })
}

// HostEnvironments returns the environments whose keys work on host, which is
// canonical; served is false if the policy does not name it.
func (p *Policy) HostEnvironments(host string) (environments Set, served bool) {
	if len(p.Hosts) == 0 {
		return All(len(p.Environments)), true
	}
	for i := range p.Hosts {
		if p.Hosts[i].Name == host {
			return p.Hosts[i].Environments, true
		}
	}
	return 0, false
}

// Serves says whether host, which is canonical, is served.
func (p *Policy) Serves(host string) bool {
	_, served := p.HostEnvironments(host)
	return served
}

// ServesName says whether a host of this name is served, on whatever port.
func (p *Policy) ServesName(name string) bool {
	return slices.ContainsFunc(p.Hosts, func(h Host) bool { return shape.HostName(h.Name) == name })
}

// NamesHosts says whether the policy names its hosts, and does not serve any.
func (p *Policy) NamesHosts() bool { return len(p.Hosts) > 0 }

// Init checks that the fields fit together and prepares matching. [Decode] and
// the compiler call it; nothing may be changed afterwards.
func (p *Policy) Init() error {
	if p.Name == "" {
		return errors.New("the policy has no name")
	}
	if len(p.Sources) == 0 {
		return errors.New("the policy has no source: name a header that carries the key")
	}
	if len(p.Kinds) == 0 || len(p.Kinds) > maxSet {
		return fmt.Errorf("the policy has %d kinds: 1 to %d are possible", len(p.Kinds), maxSet)
	}
	if len(p.Environments) == 0 || len(p.Environments) > maxSet {
		return fmt.Errorf("the policy has %d environments: 1 to %d are possible", len(p.Environments), maxSet)
	}
	var err error
	prefixes := make([]string, len(p.Kinds))
	for i, k := range p.Kinds {
		prefixes[i] = k.Prefix
		if k.Name == "" || p.KindIndex(k.Name) != i {
			return fmt.Errorf("kind %q is empty or given twice", k.Name)
		}
	}
	if p.grammar, err = credential.NewGrammar(prefixes, p.Environments, p.Imported); err != nil {
		return err
	}
	for i := range p.Answers {
		if err := p.Answers[i].init(); err != nil {
			return fmt.Errorf("answer of %s: %w", Reason(i), err)
		}
	}
	for i := range p.Routes {
		if err := p.initRoute(&p.Routes[i]); err != nil {
			return fmt.Errorf("route %q: %w", p.Routes[i].Name, err)
		}
	}
	if p.router, err = newRouter(p.Routes); err != nil {
		return err
	}
	if err := p.CustomerToken.init(); err != nil {
		return fmt.Errorf("customer token: %w", err)
	}
	p.headers, err = newFieldNames(p)
	return err
}

func (p *Policy) initRoute(r *Route) error {
	if r.Token && p.CustomerToken == nil {
		return errors.New("it demands a customer token, and the policy describes none")
	}
	if !r.Public && r.Kinds&All(len(p.Kinds)) == 0 {
		return errors.New("no kind of key may call it: list kinds, or make it public")
	}
	params := []string{r.TenantParam}
	for m := range r.Demands {
		d := &r.Demands[m]
		params = append(params, d.OwnKey)
		for i := range d.Scopes {
			s := &d.Scopes[i]
			if err := s.init(); err != nil {
				return err
			}
			params = append(params, s.param)
		}
	}
	for _, pattern := range r.Patterns {
		parsed, err := parsePattern(pattern)
		if err != nil {
			return err
		}
		for _, name := range params {
			if name != "" && parsed.segment(name) < 0 {
				return fmt.Errorf("pattern %q has no single-segment parameter {%s}", pattern, name)
			}
		}
	}
	return nil
}
