package policy

import (
	"fmt"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/shape"
)

// router finds the most specific pattern of a path, per method.
type router struct {
	root     node
	patterns []*pattern
	upper    bool // some literal has an upper-case letter
}

type node struct {
	literals []literalChild
	index    map[string]*node // the same, where there are many
	single   *node
	multi    [shape.NumMethods]*pattern
	end      [shape.NumMethods]*pattern
}

type literalChild struct {
	text string
	node *node
}

// manyLiterals is from where on a map is faster than looking one by one.
const manyLiterals = 8

func newRouter(routes []Route) (router, error) {
	var rt router
	for i := range routes {
		r := &routes[i]
		if len(r.Patterns) == 0 || r.Methods == 0 {
			return rt, fmt.Errorf("route %q has no path or no method", r.Name)
		}
		for _, text := range r.Patterns {
			p, err := parsePattern(text)
			if err != nil {
				return rt, fmt.Errorf("route %q: %w", r.Name, err)
			}
			p.route = r
			for _, q := range rt.patterns {
				if q.route.Methods&r.Methods == 0 {
					continue
				}
				if err := conflict(p, q); err != nil {
					return rt, fmt.Errorf("routes %q and %q: %w", q.route.Name, r.Name, err)
				}
			}
			rt.add(p)
		}
	}
	return rt, nil
}

func (rt *router) add(p *pattern) {
	rt.patterns = append(rt.patterns, p)
	n := &rt.root
	for _, s := range p.segments {
		switch {
		case s.multi:
			p.set(&n.multi)
			return
		case s.param != "":
			if n.single == nil {
				n.single = new(node)
			}
			n = n.single
		default:
			rt.upper = rt.upper || ascii.HasUpper(s.literal)
			n = n.child(s.literal)
		}
	}
	p.set(&n.end)
}

func (p *pattern) set(byMethod *[shape.NumMethods]*pattern) {
	for m := range byMethod {
		if p.route.Methods.Has(shape.Method(m)) {
			byMethod[m] = p
		}
	}
}

func (n *node) child(literal string) *node {
	if c := n.literal(literal); c != nil {
		return c
	}
	c := new(node)
	n.literals = append(n.literals, literalChild{literal, c})
	if len(n.literals) > manyLiterals {
		n.index = make(map[string]*node)
		for _, l := range n.literals {
			n.index[l.text] = l.node
		}
	}
	return c
}

func (n *node) literal(s string) *node {
	if n.index != nil {
		return n.index[s]
	}
	for i := range n.literals {
		if l := &n.literals[i]; l.text == s {
			return l.node
		}
	}
	return nil
}

// match finds the most specific pattern for the segments of path from at on. A
// node is met at most once, so the tree's size bounds the work.
func (n *node) match(path *shape.Path, at int, m shape.Method) *pattern {
	if at == path.Segments() {
		return n.end[m]
	}
	seg := path.Segment(at)
	if c := n.literal(seg); c != nil {
		if p := c.match(path, at+1, m); p != nil {
			return p
		}
	}
	if seg != "" && n.single != nil {
		if p := n.single.match(path, at+1, m); p != nil {
			return p
		}
	}
	return n.multi[m]
}

// Match is the route of a request with every way in which an upstream may read its
// path. The zero value is no route.
type Match struct {
	Route    *Route
	readings [maxReadings]reading
	count    int
}

// maxReadings: with escapes decoded or not, with case folded or not, with the last
// slash or without.
const maxReadings = 8

// reading is one way to read a path, and the pattern that it selects.
type reading struct {
	pattern *pattern
	path    *shape.Path
	fold    bool // letters are taken in lower case
}

// Match finds the route for a path. It has none where one of the path's readings
// would select another, for any method: upstreams differ in whether they decode
// escapes that need not be ([shape.Path.Unescaped]), whether case counts, and whether a
// last slash does (R9, R17).
func (p *Policy) Match(path *shape.Path, m shape.Method, to *Match) {
	root := &p.router.root
	found := root.match(path, 0, m)
	if found == nil {
		return
	}
	to.Route = found.route
	to.add(reading{found, path, false})
	if !path.HasUpper() && !path.HasEscape() && !path.EndsInSlash() && !p.router.upper {
		return
	}
	if !to.readOtherwise(&p.router, path, m) {
		*to = Match{}
	}
}

// readOtherwise adds the other readings of path. It returns false if one of them
// selects another route.
func (m *Match) readOtherwise(rt *router, path *shape.Path, method shape.Method) bool {
	var as selection
	rt.root.selectAll(path, 0, false, &as)
	fold := rt.upper || path.HasUpper()
	if fold && !m.read(&rt.root, &as, path, true, method) {
		return false
	}
	var others []*shape.Path
	plain, escapes := path.Unescaped()
	if escapes {
		others = append(others, plain)
	}
	if path.EndsInSlash() {
		if others = append(others, path.WithoutSlash()); escapes {
			others = append(others, plain.WithoutSlash())
		}
	}
	for _, other := range others {
		if !m.read(&rt.root, &as, other, false, method) || fold && !m.read(&rt.root, &as, other, true, method) {
			return false
		}
	}
	return true
}

// Pattern is the pattern of the route that the path itself matches, or "".
func (m *Match) Pattern() string {
	if m.count == 0 {
		return ""
	}
	return m.readings[0].pattern.text
}

func (m *Match) add(r reading) {
	m.readings[m.count] = r
	m.count++
}

// read adds a reading. It returns false if that selects another route than as does,
// for some method. Selecting none is not another.
func (m *Match) read(root *node, as *selection, path *shape.Path, fold bool, method shape.Method) bool {
	var s selection
	root.selectAll(path, 0, fold, &s)
	for i, p := range s {
		if p != nil && (as[i] == nil || as[i].route != p.route) {
			return false
		}
	}
	if p := s[method]; p != nil {
		m.add(reading{p, path, fold})
	}
	return true
}

// selection is what a path selects, by method.
type selection [shape.NumMethods]*pattern

// selectAll fills in what the segments of path from at on select, for methods
// that have nothing yet. With fold, letters are compared without their case.
func (n *node) selectAll(path *shape.Path, at int, fold bool, s *selection) {
	if at == path.Segments() {
		s.fill(&n.end)
		return
	}
	seg := path.Segment(at)
	for i := range n.literals {
		if l := &n.literals[i]; l.text == seg || fold && ascii.EqualFold(l.text, seg) {
			l.node.selectAll(path, at+1, fold, s)
		}
	}
	if seg != "" && n.single != nil {
		n.single.selectAll(path, at+1, fold, s)
	}
	s.fill(&n.multi)
}

func (s *selection) fill(from *[shape.NumMethods]*pattern) {
	for m, p := range from {
		if s[m] == nil {
			s[m] = p
		}
	}
}

// ParamIs says whether the parameter called name is want in every reading, once
// escapes that need not be are decoded. Case counts: it is the name of something.
func (m *Match) ParamIs(name, want string) bool {
	for i := range m.count {
		if shape.Unescape(m.readings[i].raw(name)) != want {
			return false
		}
	}
	return m.count > 0
}

// raw is the path segment that the parameter called name matched.
func (r *reading) raw(name string) string {
	if i := r.pattern.segment(name); i >= 0 {
		return r.path.Segment(i)
	}
	return ""
}

// param is that segment as this reading takes it.
func (r *reading) param(name string) string {
	s := r.raw(name)
	if r.fold {
		s = strings.ToLower(s) // ASCII, as all of a canonical path
	}
	return s
}

// Preflight returns the methods of all routes that opted in to CORS and match
// path; none means that a preflight is a request like any other. token is true
// if one of them demands the customer token.
func (p *Policy) Preflight(path *shape.Path) (methods shape.MethodSet, token bool) {
	for _, pt := range p.router.patterns {
		if pt.route.CORS && pt.matches(path) {
			methods |= pt.route.Methods
			token = token || pt.route.Token
		}
	}
	return methods &^ shape.MethodSet(0).With(shape.OPTIONS), token
}

// CheckRoutes says why routes cannot stand beside each other.
func CheckRoutes(routes []Route) error {
	_, err := newRouter(routes)
	return err
}
