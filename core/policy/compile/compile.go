// Package compile turns a policy document in YAML into a compiled policy.
//
// Call [Compile]; its errors name the file, the line and the column and say how
// to mend the document. policies/README.md describes the language. Edges do not
// link this package: they get the compiled form.
package compile

import (
	"errors"
	"fmt"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
	"github.com/keystile/keystile/internal/document"
)

// Options are what a document leaves to its operator.
type Options struct {
	// Hosts replaces the host names of an environment, or with the key "" those
	// that are not bound to an environment.
	Hosts map[string][]string
	// KeySets are JSON Web Key Sets by the name that the document gives.
	KeySets map[string][]byte
}

type policyDoc struct {
	Name          text               `yaml:"name"`
	Sources       []sourceDoc        `yaml:"sources"`
	Imported      bool               `yaml:"imported_keys"`
	Kinds         entries[kindDoc]   `yaml:"kinds"`
	Environments  entries[hostsDoc]  `yaml:"environments"`
	Hosts         texts              `yaml:"hosts"`
	Scopes        entries[scopeDoc]  `yaml:"scopes"`
	Grants        grantsDoc          `yaml:"grants"`
	Routes        []routeDoc         `yaml:"routes"`
	UnroutedKinds texts              `yaml:"unrouted_kinds"`
	Restrictions  texts              `yaml:"restrictions"`
	Token         *tokenDoc          `yaml:"customer_token"`
	Identity      entries[text]      `yaml:"identity_headers"`
	Answers       entries[answerDoc] `yaml:"answers"`
	ContentType   text               `yaml:"content_type"`
	Body          text               `yaml:"body"`
}

type sourceDoc struct {
	Header text `yaml:"header"`
	Scheme text `yaml:"scheme"`
}

type kindDoc struct {
	Prefix text      `yaml:"prefix"`
	ID     text      `yaml:"id_prefix"`
	Scoped bool      `yaml:"scoped"`
	Public bool      `yaml:"public"`
	Limit  *limitDoc `yaml:"limit"`
}

type limitDoc struct {
	Requests uint64 `yaml:"requests"`
	Window   period `yaml:"window"`
}

type hostsDoc struct {
	Hosts texts `yaml:"hosts"`
}

type scopeDoc struct {
	Implies texts `yaml:"implies"`
}

type grantsDoc struct {
	Never  texts  `yaml:"never"`
	Min    uint   `yaml:"min"`
	Max    uint   `yaml:"max"`
	Rotate period `yaml:"rotate"`
	Tenant text   `yaml:"tenant"`
}

type routeDoc struct {
	Name         text               `yaml:"name"`
	Path         texts              `yaml:"path"`
	Methods      texts              `yaml:"methods"`
	Kinds        texts              `yaml:"kinds"`
	Public       bool               `yaml:"public"`
	CORS         bool               `yaml:"cors"`
	Tenant       text               `yaml:"tenant"`
	Token        bool               `yaml:"customer_token"`
	Unrestricted bool               `yaml:"unrestricted"`
	Scopes       entries[demandDoc] `yaml:"scopes"`
}

type tokenDoc struct {
	Header    text          `yaml:"header"`
	Scheme    text          `yaml:"scheme"`
	Algorithm text          `yaml:"algorithm"`
	Issuer    text          `yaml:"issuer"`
	Audience  text          `yaml:"audience"`
	Keys      text          `yaml:"keys"`
	Bind      entries[text] `yaml:"bind"`
}

var (
	policyName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	headerName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,63}$`)
	name       = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
)

// Compile compiles the document source, which stands in file.
func Compile(file string, source []byte, opts Options) (*policy.Policy, error) {
	var doc policyDoc
	if err := document.Decode(file, source, &doc); err != nil {
		return nil, err
	}
	c := compiler{doc: &doc, opts: opts, p: new(policy.Policy)}
	if err := c.compile(); err != nil {
		return nil, document.In(file, err)
	}
	return c.p, nil
}

type compiler struct {
	doc  *policyDoc
	opts Options
	p    *policy.Policy
}

func (c *compiler) compile() error {
	for _, step := range []func() error{
		c.header, c.kinds, c.environments, c.scopes, c.token, c.routes, c.identity, c.answers,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return c.p.Init()
}

func (c *compiler) header() error {
	doc, p := c.doc, c.p
	if !policyName.MatchString(doc.Name.s) {
		return doc.Name.Errorf("name %q: give the policy a name of lower-case letters, digits, dot, dash and underscore", doc.Name.s)
	}
	p.Name, p.Imported = doc.Name.s, doc.Imported
	for _, s := range doc.Sources {
		source, err := s.compile()
		if err != nil {
			return err
		}
		for _, other := range p.Sources {
			if policy.SameField(other.Header, source.Header) {
				return s.Header.Errorf("header %q is a source already", s.Header.s)
			}
		}
		p.Sources = append(p.Sources, source)
	}
	if len(p.Sources) == 0 {
		return doc.Name.Errorf("the policy has no sources: add `sources: [{header: Authorization, scheme: Bearer}]`")
	}
	for _, r := range doc.Restrictions {
		bit, ok := map[string]policy.Restrictions{
			"ip": policy.RestrictIP, "referrer": policy.RestrictReferrer, "endpoint": policy.RestrictEndpoint,
		}[r.s]
		if !ok {
			return r.Errorf("restriction %q: use ip, referrer or endpoint", r.s)
		}
		p.Restrictions |= bit
	}
	return nil
}

// structured are the schemes of HTTP whose credentials are no bare token: a password in
// base64, parameters, or a proof.
var structured = []string{
	"basic", "digest", "negotiate", "ntlm", "hoba", "mutual", "oauth", "scram-sha-1", "scram-sha-256", "vapid", "aws4-hmac-sha256", "concealed",
}

func (s sourceDoc) compile() (credential.Source, error) {
	if !headerName.MatchString(s.Header.s) {
		return credential.Source{}, s.Header.Errorf("header %q: use letters, digits and dashes", s.Header.s)
	}
	if policy.SameField(s.Header.s, "Cookie") {
		return credential.Source{}, s.Header.Errorf("header %q: a key in a cookie is always denied, so that no request would match: choose another name, like Authorization", s.Header.s)
	}
	if policy.Reserved(s.Header.s) {
		return credential.Source{}, errReserved(s.Header)
	}
	if slices.Contains(structured, strings.ToLower(s.Scheme.s)) {
		return credential.Source{}, s.Scheme.Errorf("scheme %q never carries a key as it is, so that no request would match: use Bearer, or a scheme of your own", s.Scheme.s)
	}
	if s.Scheme.s != "" && !headerName.MatchString(s.Scheme.s) {
		return credential.Source{}, s.Scheme.Errorf("scheme %q: use letters, digits and dashes", s.Scheme.s)
	}
	return credential.Source{
		Header: textproto.CanonicalMIMEHeaderKey(s.Header.s), Name: s.Header.s, Scheme: s.Scheme.s,
	}, nil
}

func (c *compiler) kinds() error {
	if len(c.doc.Kinds) == 0 {
		return c.doc.Name.Errorf("the policy has no kinds: add `kinds: {secret: {prefix: sk}}`")
	}
	for _, e := range c.doc.Kinds {
		if !name.MatchString(e.key.s) {
			return e.key.Errorf("kind %q: use lower-case letters, digits, dash and underscore", e.key.s)
		}
		k := policy.Kind{
			Name: e.key.s, Prefix: e.value.Prefix.s, IDPrefix: e.value.ID.s,
			Scoped: e.value.Scoped, Public: e.value.Public,
		}
		if k.Prefix == "" {
			return e.key.Errorf("kind %q has no prefix", k.Name)
		}
		if k.IDPrefix == "" {
			k.IDPrefix = "key"
		}
		if !idPrefix.MatchString(k.IDPrefix) {
			return e.value.ID.Errorf("id_prefix %q of kind %q: use at most 32 letters, digits, dashes and underscores", k.IDPrefix, k.Name)
		}
		if l := e.value.Limit; l != nil {
			if l.Requests == 0 || l.Window.Duration < 1e9 {
				return e.key.Errorf("limit of kind %q: give requests, and a window of at least 1s", k.Name)
			}
			k.Limit = policy.Limit{Requests: l.Requests, Window: l.Window.Duration}
		}
		c.p.Kinds = append(c.p.Kinds, k)
	}
	var err error
	c.p.UnroutedKinds, err = c.kindSet(c.doc.UnroutedKinds)
	return err
}

// kindSet is the set of the named kinds; no names are all kinds.
func (c *compiler) kindSet(names texts) (policy.Set, error) {
	if len(names) == 0 {
		return policy.All(len(c.p.Kinds)), nil
	}
	var set policy.Set
	for _, n := range names {
		i := c.p.KindIndex(n.s)
		if i < 0 {
			return 0, n.Errorf("kind %q is not declared under kinds", n.s)
		}
		set = set.With(i)
	}
	return set, nil
}

func (c *compiler) environments() error {
	if len(c.doc.Environments) == 0 {
		return c.doc.Name.Errorf("the policy has no environments: add `environments: {live: , test: }`")
	}
	for _, e := range c.doc.Environments {
		c.p.Environments = append(c.p.Environments, e.key.s)
	}
	for environment := range c.opts.Hosts {
		if environment != "" && !slices.Contains(c.p.Environments, environment) {
			return c.doc.Name.Errorf("hosts are bound to environment %q, which policy %q does not have", environment, c.p.Name)
		}
	}
	var unbound policy.Set
	for i, e := range c.doc.Environments {
		hosts := c.hosts(e.key.s, e.value.Hosts)
		if len(hosts) == 0 {
			unbound = unbound.With(i)
		}
		for _, h := range hosts {
			if err := c.host(h, policy.Set(0).With(i)); err != nil {
				return err
			}
		}
	}
	free := c.hosts("", c.doc.Hosts)
	if _, own := c.opts.Hosts[""]; unbound == 0 && !own && len(c.opts.Hosts) > 0 {
		free = nil // the operator's hosts replace the document's, for each environment
	}
	if len(free) == 0 && unbound != 0 && len(c.p.Hosts) > 0 {
		return c.doc.Name.Errorf("some environments have hosts and some none: give each its hosts, or list hosts for the others at the top")
	}
	for _, h := range free {
		if unbound == 0 {
			return h.Errorf("host %q is for no environment: each has hosts of its own", h.s)
		}
		if err := c.host(h, unbound); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) hosts(environment string, documented texts) texts {
	own, ok := c.opts.Hosts[environment]
	if !ok {
		return documented
	}
	var out texts
	for _, h := range own {
		out = append(out, text{s: h})
	}
	return out
}

// CheckHost says why name cannot be the name of a host that a policy serves.
func CheckHost(name string) error {
	canonical, ok := shape.CanonicalHost(name)
	switch {
	case ok && canonical == name:
		return nil
	case strings.Contains(name, "://"):
		return errors.New("write the host alone, without https://")
	case strings.Contains(name, "/"):
		return errors.New("write the host alone, without a path: routes have paths")
	case strings.Contains(name, "*"):
		return errors.New("a host has no star: name each one")
	case !ok:
		return errors.New("this is no host name: write it like api.example.com, or api.example.com:8443 where the port is not 443")
	}
	return fmt.Errorf("write %s: in lower case, without a trailing dot and without port 443; any other port belongs to the name", canonical)
}

func (c *compiler) host(h text, environments policy.Set) error {
	if err := CheckHost(h.s); err != nil {
		return h.Errorf("host %q: %s", h.s, err)
	}
	for i := range c.p.Hosts {
		if c.p.Hosts[i].Name == h.s {
			c.p.Hosts[i].Environments |= environments
			return nil
		}
	}
	c.p.Hosts = append(c.p.Hosts, policy.Host{Name: h.s, Environments: environments})
	return nil
}

func (c *compiler) identity() error {
	id := policy.DefaultIdentity
	fields := map[string]*string{
		"key_id": &id.KeyID, "kind": &id.Kind, "environment": &id.Environment, "tenant": &id.Tenant,
		"scopes": &id.Scopes, "deprecated": &id.Deprecated, "customer": &id.Customer,
	}
	for _, e := range c.doc.Identity {
		field, ok := fields[e.key.s]
		if !ok {
			return e.key.Errorf("identity header %q: use key_id, kind, environment, tenant, scopes, deprecated or customer", e.key.s)
		}
		if e.value.s != "" && !headerName.MatchString(e.value.s) {
			return e.value.Errorf("header %q: use letters, digits and dashes", e.value.s)
		}
		if err := c.checkIdentity(e.value); err != nil {
			return err
		}
		*field = textproto.CanonicalMIMEHeaderKey(e.value.s)
	}
	c.p.Identity = id
	if name := id.Repeated(); name != "" {
		return c.doc.Name.Errorf("identity_headers: %s would tell the upstream two things: give each its own header", name)
	}
	return nil
}

func errReserved(header text) error {
	return header.Errorf("header %q has a meaning of its own in HTTP, or for Keystile: choose another name", header.s)
}

// checkIdentity refuses a header for identity that means something else already.
func (c *compiler) checkIdentity(header text) error {
	if header.s == "" {
		return nil
	}
	if policy.Reserved(header.s) {
		return errReserved(header)
	}
	for _, s := range c.p.Sources {
		if policy.SameField(s.Header, header.s) {
			return header.Errorf("header %q is a source of the API key: choose another name", header.s)
		}
	}
	if c.p.CustomerToken != nil && policy.SameField(c.p.CustomerToken.Source.Header, header.s) {
		return header.Errorf("header %q is the customer token's: choose another name", header.s)
	}
	return nil
}

func (c *compiler) scopes() error {
	doc, g := c.doc, &c.p.Grants
	for _, e := range doc.Scopes {
		if err := checkScope(e.key); err != nil {
			return err
		}
		g.Scopes = append(g.Scopes, e.key.s)
	}
	for _, e := range doc.Scopes {
		for _, implied := range e.value.Implies {
			if !slices.Contains(g.Scopes, implied.s) {
				return implied.Errorf("scope %q implies %q, which is not declared", e.key.s, implied.s)
			}
			if param(implied.s) != "" && param(implied.s) != param(e.key.s) {
				return implied.Errorf("scope %q implies %q, whose {%s} it does not have", e.key.s, implied.s, param(implied.s))
			}
		}
	}
	for _, n := range doc.Grants.Never {
		if _, ok := c.instance(n.s); !ok {
			return n.Errorf("scope %q is not one that could be granted", n.s)
		}
		g.Never = append(g.Never, n.s)
	}
	g.Min, g.Max = int(doc.Grants.Min), int(doc.Grants.Max)
	if g.Max != 0 && g.Max < g.Min {
		return doc.Name.Errorf("grants: max is below min")
	}
	g.Rotate = doc.Grants.Rotate.Duration
	switch doc.Grants.Tenant.s {
	case "", "optional":
	case "required":
		g.TenantRequired = true
	default:
		return doc.Grants.Tenant.Errorf("tenant %q: use required or optional", doc.Grants.Tenant.s)
	}
	return nil
}

// idPrefix is how key IDs may begin. They stand in paths, where they need no escape.
var idPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

var scopeName = regexp.MustCompile(`^[A-Za-z0-9:._/*-]*(\{[A-Za-z0-9_]+\})?[A-Za-z0-9:._/*-]*$`)

func checkScope(t text) error {
	if t.s == "" || t.s == "none" || len(t.s) > 128 || !scopeName.MatchString(t.s) {
		return t.Errorf("scope %q: use letters, digits and : . _ / * -, with at most one {parameter}; none is reserved", t.s)
	}
	return nil
}

// param is the name of the parameter in a scope, or "".
func param(scope string) string {
	_, rest, _ := strings.Cut(scope, "{")
	p, _, _ := strings.Cut(rest, "}")
	return p
}

// instance finds the declared scope that a name is, or is an instance of:
// "refunds:read" is one of "{resource}:read" with "refunds" for its parameter.
func (c *compiler) instance(scope string) (value string, ok bool) {
	for _, declared := range c.p.Grants.Scopes {
		if v, ok := policy.MatchScope(declared, scope); ok {
			return v, true
		}
	}
	return "", false
}

// accepted returns the names whose grant meets a demand for scope: scope itself
// and all that imply it.
func (c *compiler) accepted(scope text) ([]string, error) {
	out := []string{scope.s}
	if _, ok := c.instance(scope.s); !ok {
		return nil, scope.Errorf("scope %q is not declared under scopes", scope.s)
	}
	for i := 0; i < len(out); i++ {
		for _, e := range c.doc.Scopes {
			for _, implied := range e.value.Implies {
				value, ok := policy.MatchScope(implied.s, out[i])
				if !ok {
					continue
				}
				by := e.key.s
				if p := param(by); p != "" && param(implied.s) != "" {
					by = strings.Replace(by, "{"+p+"}", value, 1)
				}
				if !slices.Contains(out, by) {
					out = append(out, by)
				}
			}
		}
	}
	return out, nil
}
