package compile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Error is a mistake in a policy document.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// place is where in the document something stands.
type place struct{ line, column int }

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{t.Position.Line, t.Position.Column}
}

func (p place) errorf(format string, args ...any) error {
	return &Error{Line: max(p.line, 1), Column: max(p.column, 1), Message: fmt.Sprintf(format, args...)}
}

// DecodeYAML reads YAML strictly: unknown and duplicate fields are errors, and
// every error has its place in file.
func DecodeYAML(file string, source []byte, into any) (err error) {
	defer func() {
		// The library trips over some input that is no YAML (FuzzCompile has one).
		if recover() != nil {
			err = &Error{file, 1, 1, "this is not YAML"}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(source), yaml.Strict())
	if err := dec.Decode(into); err != nil {
		return located(file, err)
	}
	return nil
}

// located turns an error of the YAML library, or one of ours on its way
// through it, into an [Error] of the file.
func located(file string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		own.File = file
		return own
	}
	var theirs yaml.Error
	if errors.As(err, &theirs) {
		p := placeOf(theirs.GetToken())
		return &Error{file, p.line, p.column, theirs.GetMessage()}
	}
	return &Error{file, 1, 1, err.Error()}
}

// text is a scalar with its place.
type text struct {
	s string
	place
}

func (t *text) UnmarshalYAML(n ast.Node) error {
	t.place = placeOf(n.GetToken())
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return yaml.NodeToValue(n, &t.s)
	case ast.ScalarNode:
		return t.errorf("%s: put this in quotes, it is read as text", n)
	}
	return t.errorf("one text is expected here, not a list or map")
}

// texts is a list of scalars, or one alone.
type texts []text

func (l *texts) UnmarshalYAML(n ast.Node) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		var t text
		if err := t.UnmarshalYAML(n); err != nil {
			return err
		}
		*l = texts{t}
		return nil
	}
	for _, v := range seq.Values {
		var t text
		if err := t.UnmarshalYAML(v); err != nil {
			return err
		}
		*l = append(*l, t)
	}
	return nil
}

func (l texts) strings() []string {
	var out []string
	for _, t := range l {
		out = append(out, t.s)
	}
	return out
}

// entries is a map in the order of the document, with the places of its keys.
type entries[T any] []entry[T]

type entry[T any] struct {
	key   text
	value T
}

func (m *entries[T]) UnmarshalYAML(n ast.Node) error {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode:
	default:
		return placeOf(n.GetToken()).errorf("a map is expected here")
	}
	for _, v := range values {
		e := entry[T]{key: text{v.Key.GetToken().Value, placeOf(v.Key.GetToken())}}
		for _, other := range *m {
			if other.key.s == e.key.s {
				return e.key.errorf("%q is given twice", e.key.s)
			}
		}
		if _, null := v.Value.(*ast.NullNode); !null {
			if err := yaml.NodeToValue(v.Value, &e.value, yaml.Strict()); err != nil {
				return err
			}
		}
		*m = append(*m, e)
	}
	return nil
}

// duration is a length of time in Go's syntax, with d for days.
type duration struct{ time.Duration }

func (d *duration) UnmarshalYAML(n ast.Node) error {
	var t text
	if err := t.UnmarshalYAML(n); err != nil {
		return err
	}
	var err error
	if d.Duration, err = ParseDuration(t.s); err != nil {
		return t.errorf("%s", err)
	}
	return nil
}

// ParseDuration reads a length of time in Go's syntax; "90d" is 90 days.
func ParseDuration(s string) (time.Duration, error) {
	unit := time.Duration(1)
	parse := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		parse, unit = days+"h", 24
	}
	d, err := time.ParseDuration(parse)
	if err != nil {
		return 0, fmt.Errorf("%q is no length of time: write 90d, 24h or 30s", s)
	}
	return d * unit, nil
}
