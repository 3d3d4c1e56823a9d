package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

// pattern is a path pattern taken apart.
type pattern struct {
	text     string
	route    *Route
	segments []segment
}

type segment struct {
	literal string // if param is ""
	param   string
	multi   bool // {param...}: the rest of the path, also an empty one
}

// segment returns the index of the single-segment parameter called name, or -1.
func (p *pattern) segment(name string) int {
	for i, s := range p.segments {
		if s.param == name && !s.multi {
			return i
		}
	}
	return -1
}

// parsePattern reads a path in the pattern syntax of net/http: literal
// segments, {name}, {name...} at the end, {$} for a final slash, and a final
// slash alone for everything below it.
func parsePattern(s string) (*pattern, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, fmt.Errorf("pattern %q does not begin with a slash", s)
	}
	p := &pattern{text: s}
	parts := strings.Split(s[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		seg, err := parseSegment(part, last)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", s, err)
		}
		if seg.param != "" && !seg.multi && p.segment(seg.param) >= 0 {
			return nil, fmt.Errorf("pattern %q: parameter {%s} is given twice", s, seg.param)
		}
		p.segments = append(p.segments, seg)
	}
	return p, nil
}

func parseSegment(s string, last bool) (segment, error) {
	switch {
	case s == "" && last:
		return segment{param: "...", multi: true}, nil
	case s == "":
		return segment{}, errors.New("empty segment")
	case s == "{$}" && last:
		return segment{}, nil
	case s[0] == '{' && s[len(s)-1] == '}':
		name, multi := strings.CutSuffix(s[1:len(s)-1], "...")
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return segment{}, fmt.Errorf("parameter %q: use letters, digits and _", s)
		}
		if multi && !last {
			return segment{}, fmt.Errorf("parameter %q can only stand at the end", s)
		}
		return segment{param: name, multi: multi}, nil
	}
	for i := range len(s) {
		if !pathChar[s[i]] || s[i] == '/' {
			return segment{}, fmt.Errorf("segment %q has a character that a canonical path cannot have; a parameter fills a whole segment", s)
		}
	}
	if s == "." || s == ".." {
		return segment{}, errors.New("dot segments never match")
	}
	return segment{literal: s}, nil
}

// pathChar has what may stand unescaped in a request path: the pchar of RFC 3986
// without ";" (R12), and the slash.
var pathChar = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/") {
		t[c] = true
	}
	return t
}()

// covers says whether p matches every path that q matches.
func (p *pattern) covers(q *pattern, fold bool) bool {
	for i, s := range p.segments {
		if i >= len(q.segments) {
			return false
		}
		t := q.segments[i]
		if s.multi {
			return true
		}
		if t.multi {
			return false
		}
		if s.param != "" {
			if t.param == "" && t.literal == "" {
				return false
			}
			continue
		}
		if t.param != "" || !sameLiteral(s.literal, t.literal, fold) {
			return false
		}
	}
	return len(p.segments) == len(q.segments)
}

// overlaps says whether some path matches both p and q.
func (p *pattern) overlaps(q *pattern) bool {
	for i := 0; ; i++ {
		if i >= len(p.segments) || i >= len(q.segments) {
			return len(p.segments) == len(q.segments)
		}
		s, t := p.segments[i], q.segments[i]
		if s.multi || t.multi {
			return true
		}
		if s.param == "" && t.param == "" && s.literal != t.literal {
			return false
		}
		if s.param != "" && t.param == "" && t.literal == "" || t.param != "" && s.param == "" && s.literal == "" {
			return false
		}
	}
}

func sameLiteral(a, b string, fold bool) bool {
	return a == b || fold && ascii.EqualFold(a, b)
}

// conflict says why p and q of different routes cannot stand beside each
// other: as in net/http, one of two overlapping patterns must be more specific.
func conflict(p, q *pattern) error {
	switch {
	case p.covers(q, true) && q.covers(p, true):
		return fmt.Errorf("patterns %q and %q match the same paths, or differ in case alone", p.text, q.text)
	case p.overlaps(q) && !p.covers(q, false) && !q.covers(p, false):
		return fmt.Errorf("patterns %q and %q overlap and neither is more specific", p.text, q.text)
	}
	return nil
}

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
	multi    [NumMethods]*pattern
	end      [NumMethods]*pattern
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

func (p *pattern) set(byMethod *[NumMethods]*pattern) {
	for m := range byMethod {
		if p.route.Methods.Has(Method(m)) {
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
func (n *node) match(path *Path, at int, m Method) *pattern {
	if at == path.count {
		return n.end[m]
	}
	seg := path.segment(at)
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
	path    *Path
	fold    bool // letters are taken in lower case
}

// Match finds the route for a path. It has none where one of the path's readings
// would select another, for any method: upstreams differ in whether they decode
// escapes that need not be ([Path.unescaped]), whether case counts, and whether a
// last slash does (R9, R17).
func (p *Policy) Match(path *Path, m Method, to *Match) {
	root := &p.router.root
	found := root.match(path, 0, m)
	if found == nil {
		return
	}
	to.Route = found.route
	to.add(reading{found, path, false})
	if path.has&(classUpper|classOther) == 0 && !path.endsInSlash() && !p.router.upper {
		return
	}
	if !to.readOtherwise(&p.router, path, m) {
		*to = Match{}
	}
}

// readOtherwise adds the other readings of path. It returns false if one of them
// selects another route.
func (m *Match) readOtherwise(rt *router, path *Path, method Method) bool {
	var as selection
	rt.root.selectAll(path, 0, false, &as)
	fold := rt.upper || path.has&classUpper != 0
	if fold && !m.read(&rt.root, &as, path, true, method) {
		return false
	}
	var others []*Path
	plain, escapes := path.unescaped()
	if escapes {
		others = append(others, plain)
	}
	if path.endsInSlash() {
		if others = append(others, path.withoutSlash()); escapes {
			others = append(others, plain.withoutSlash())
		}
	}
	for _, other := range others {
		if !m.read(&rt.root, &as, other, false, method) || fold && !m.read(&rt.root, &as, other, true, method) {
			return false
		}
	}
	return true
}

func (m *Match) add(r reading) {
	m.readings[m.count] = r
	m.count++
}

// read adds a reading. It returns false if that selects another route than as does,
// for some method. Selecting none is not another.
func (m *Match) read(root *node, as *selection, path *Path, fold bool, method Method) bool {
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
type selection [NumMethods]*pattern

// selectAll fills in what the segments of path from at on select, for methods
// that have nothing yet. With fold, letters are compared without their case.
func (n *node) selectAll(path *Path, at int, fold bool, s *selection) {
	if at == path.count {
		s.fill(&n.end)
		return
	}
	seg := path.segment(at)
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

func (s *selection) fill(from *[NumMethods]*pattern) {
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
		if unescape(m.readings[i].raw(name)) != want {
			return false
		}
	}
	return m.count > 0
}

// raw is the path segment that the parameter called name matched.
func (r *reading) raw(name string) string {
	if i := r.pattern.segment(name); i >= 0 {
		return r.path.segment(i)
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
func (p *Policy) Preflight(path *Path) (methods MethodSet, token bool) {
	for _, pt := range p.router.patterns {
		if pt.route.CORS && pt.matches(path) {
			methods |= pt.route.Methods
			token = token || pt.route.Token
		}
	}
	return methods &^ MethodSet(0).With(OPTIONS), token
}

func (p *pattern) matches(path *Path) bool {
	for i, s := range p.segments {
		if i >= path.count {
			return false
		}
		if s.multi {
			return true
		}
		if seg := path.segment(i); s.param != "" && seg == "" || s.param == "" && seg != s.literal {
			return false
		}
	}
	return path.count == len(p.segments)
}

// EndpointPattern is one endpoint that a key is limited to: a path pattern,
// with a method before it or for every method.
type EndpointPattern struct {
	methods MethodSet
	pattern *pattern
}

// ParseEndpoint reads "/v1/users/{id}" or "GET /v1/users".
func ParseEndpoint(s string) (e EndpointPattern, err error) {
	method, path, ok := strings.Cut(s, " ")
	if !ok {
		method, path = "", s
	}
	e.methods = AllMethods
	if method != "" {
		m, known := ParseMethod(method)
		if !known || method == "HEAD" {
			return e, fmt.Errorf("endpoint %q: the method is one of GET (which brings HEAD), POST, PUT, PATCH, DELETE, OPTIONS", s)
		}
		e.methods = MethodSet(0).With(m)
	}
	e.pattern, err = parsePattern(path)
	return e, err
}

// Matches says whether a request is to this endpoint.
func (e EndpointPattern) Matches(m Method, path *Path) bool {
	return e.methods.Has(m) && e.pattern.matches(path)
}

// Unmet returns the name of a scope that this demand asks for in some reading of the
// path and that is not among granted, which are separated by spaces; "" if all are.
func (s *ScopeDemand) Unmet(granted string, m *Match) string {
	last := ""
	for i := range m.count {
		r := &m.readings[i]
		param := ""
		if s.param != "" {
			param = r.param(s.param)
		}
		if i > 0 && param == last {
			continue
		}
		if last = param; !s.meets(granted, param) {
			return s.name(r)
		}
	}
	return ""
}

func (s *ScopeDemand) meets(granted, param string) bool {
	for granted != "" {
		one := granted
		if i := strings.IndexByte(granted, ' '); i >= 0 {
			one, granted = granted[:i], granted[i+1:]
		} else {
			granted = ""
		}
		for i := range s.accept {
			if s.accept[i].is(one, param) {
				return true
			}
		}
	}
	return false
}

// is says whether s is the template with param filled in.
func (t *scopeTemplate) is(s, param string) bool {
	if t.param == "" {
		return s == t.before
	}
	n := len(t.before) + len(param)
	return len(s) == n+len(t.after) && s[:len(t.before)] == t.before && s[len(t.before):n] == param && s[n:] == t.after
}

// name is the demanded scope with the path's parameter filled in.
func (s *ScopeDemand) name(r *reading) string {
	t, _ := parseScopeTemplate(s.Scope) // checked by Init
	if t.param == "" {
		return s.Scope
	}
	return t.before + r.param(t.param) + t.after
}

// CheckRoutes says why routes cannot stand beside each other.
func CheckRoutes(routes []Route) error {
	_, err := newRouter(routes)
	return err
}

// MatchScope says whether a scope name is declared, or an instance of it, and
// returns what stands for the declared name's parameter.
func MatchScope(declared, scope string) (value string, ok bool) {
	t, err := parseScopeTemplate(declared)
	if err != nil || t.param == "" {
		return "", declared == scope
	}
	if len(scope) <= len(t.before)+len(t.after) || !strings.HasPrefix(scope, t.before) || !strings.HasSuffix(scope, t.after) {
		return "", false
	}
	value = scope[len(t.before) : len(scope)-len(t.after)]
	name := value
	if strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") {
		name = value[1 : len(value)-1] // a route's demand, with a parameter of its own
	}
	return value, name != "" && !strings.ContainsAny(name, "{}:/ ")
}
