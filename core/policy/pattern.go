package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/shape"
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

// CheckWildcards refuses what stands for a segment in other languages, and for itself
// alone here: a star, or a name behind a colon. Policies that are published may have
// them: it is for those who write one.
func CheckWildcards(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if strings.Contains(part, "*") {
			return errors.New("a star is a star in a path: write {name} for one segment, and {rest...} for all that is below")
		}
		if name, ok := strings.CutPrefix(part, ":"); ok {
			return fmt.Errorf("a colon is a colon in a path: write {%s} for one segment", name)
		}
	}
	return nil
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
		if !shape.PathChar(s[i]) || s[i] == '/' {
			return segment{}, fmt.Errorf("segment %q has a character that a canonical path cannot have; a parameter fills a whole segment", s)
		}
	}
	if s == "." || s == ".." {
		return segment{}, errors.New("dot segments never match")
	}
	return segment{literal: s}, nil
}

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

func (p *pattern) matches(path *shape.Path) bool {
	for i, s := range p.segments {
		if i >= path.Segments() {
			return false
		}
		if s.multi {
			return true
		}
		if seg := path.Segment(i); s.param != "" && seg == "" || s.param == "" && seg != s.literal {
			return false
		}
	}
	return path.Segments() == len(p.segments)
}

// EndpointPattern is one endpoint that a key is limited to: a path pattern,
// with a method before it or for every method.
type EndpointPattern struct {
	methods shape.MethodSet
	pattern *pattern
}

// ParseEndpoint reads "/v1/users/{id}" or "GET /v1/users".
func ParseEndpoint(s string) (e EndpointPattern, err error) {
	method, path, ok := strings.Cut(s, " ")
	if !ok {
		method, path = "", s
	}
	e.methods = shape.AllMethods
	if method != "" {
		m, known := shape.ParseMethod(method)
		if !known || method == "HEAD" {
			return e, fmt.Errorf("endpoint %q: the method is one of GET (which brings HEAD), POST, PUT, PATCH, DELETE, OPTIONS", s)
		}
		e.methods = shape.MethodSet(0).With(m)
	}
	switch {
	case strings.Contains(path, "://"):
		return e, fmt.Errorf("endpoint %q: write the path alone, without scheme and host", s)
	case strings.ContainsAny(path, "?#"):
		return e, fmt.Errorf("endpoint %q: write the path alone: a query is not compared", s)
	}
	if e.pattern, err = parsePattern(path); err != nil {
		err = fmt.Errorf("endpoint %q: %w", s, err)
	}
	return e, err
}

// Reaches says whether a key of the kind with this index could make a request to the
// endpoint: a route has it, in part at least.
func (p *Policy) Reaches(kind int, e EndpointPattern) bool {
	return slices.ContainsFunc(p.router.patterns, func(q *pattern) bool {
		return !q.route.Public && q.route.Kinds.Has(kind) && q.route.Methods&e.methods != 0 && q.overlaps(e.pattern)
	})
}

// Matches says whether a request is to this endpoint.
func (e EndpointPattern) Matches(m shape.Method, path *shape.Path) bool {
	return e.methods.Has(m) && e.pattern.matches(path)
}
