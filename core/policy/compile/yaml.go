package compile

import (
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/keystile/keystile/internal/document"
	"github.com/keystile/keystile/internal/duration"
)

// text is a scalar with its place.
type text struct {
	s string
	document.Place
}

func (t *text) UnmarshalYAML(n ast.Node) error {
	t.Place = document.PlaceOf(n.GetToken())
	switch n.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		return yaml.NodeToValue(n, &t.s)
	case ast.ScalarNode:
		return t.Errorf("%s: put this in quotes, it is read as text", n)
	}
	return t.Errorf("one text is expected here, not a list or map")
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
		return document.PlaceOf(n.GetToken()).Errorf("a map is expected here")
	}
	for _, v := range values {
		e := entry[T]{key: text{v.Key.GetToken().Value, document.PlaceOf(v.Key.GetToken())}}
		for _, other := range *m {
			if other.key.s == e.key.s {
				return e.key.Errorf("%q is given twice", e.key.s)
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

// period is a length of time, as in "90d".
type period struct{ time.Duration }

func (p *period) UnmarshalYAML(n ast.Node) error {
	var t text
	if err := t.UnmarshalYAML(n); err != nil {
		return err
	}
	var err error
	if p.Duration, err = duration.Parse(t.s); err != nil {
		return t.Errorf("%s", err)
	}
	return nil
}
