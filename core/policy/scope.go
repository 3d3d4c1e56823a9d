package policy

import (
	"fmt"
	"strings"
)

// ScopeDemand is one scope that a demand names.
type ScopeDemand struct {
	// Scope is the name, where {param} stands for a path parameter.
	Scope string
	// Accept are the granted names that meet it: itself and all that imply it.
	Accept []string

	accept []scopeTemplate
	param  string // that the accepted names have, or ""
}

func (s *ScopeDemand) init() error {
	s.accept, s.param = nil, ""
	for _, name := range append([]string{s.Scope}, s.Accept...) {
		t, err := parseScopeTemplate(name)
		if err != nil {
			return err
		}
		if t.param != "" && s.param != "" && t.param != s.param {
			return fmt.Errorf("scopes %q and %q have different parameters", s.Scope, name)
		}
		if t.param != "" {
			s.param = t.param
		}
		s.accept = append(s.accept, t)
	}
	s.accept = s.accept[1:] // Scope itself is met only as one of Accept
	return nil
}

// scopeTemplate is a scope name with at most one path parameter.
type scopeTemplate struct{ before, param, after string }

func parseScopeTemplate(s string) (t scopeTemplate, err error) {
	before, rest, ok := strings.Cut(s, "{")
	if !ok {
		return scopeTemplate{before: s}, nil
	}
	param, after, ok := strings.Cut(rest, "}")
	if !ok || param == "" || strings.ContainsAny(after, "{}") {
		return t, fmt.Errorf("scope %q: one {parameter} may stand in a scope", s)
	}
	return scopeTemplate{before, param, after}, nil
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
