package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// checkNames refuses an object that has a name twice, or one that is not exactly
// that of a field of t: encoding/json would take the last, and names in any case and
// with letters outside ASCII that fold to a known one (R58). Names in a map are free.
func checkNames(raw []byte, t reflect.Type) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	var stack []*level
	value := t // the type of the value that comes next; nil where any goes
	for {
		token, err := dec.Token()
		if err != nil {
			return nil // the end, or what the decoder will say
		}
		var in *level
		if len(stack) > 0 {
			in = stack[len(stack)-1]
		}
		switch {
		case token == json.Delim('}'), token == json.Delim(']'):
			stack = stack[:len(stack)-1]
		case in != nil && in.object && in.wantsName:
			name, _ := token.(string)
			if value, err = in.field(name); err != nil {
				return err
			}
			in.wantsName = false
			continue
		case token == json.Delim('{'), token == json.Delim('['):
			stack = append(stack, newLevel(value, token == json.Delim('{')))
		}
		if value = nil; len(stack) > 0 {
			value = stack[len(stack)-1].next()
		}
	}
}

// level is an object or a list that has begun.
type level struct {
	of        reflect.Type // nil where anything goes
	object    bool
	wantsName bool
	names     []string
}

func newLevel(of reflect.Type, object bool) *level {
	if of != nil && of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	return &level{of: of, object: object, wantsName: object}
}

// next is the type of the next entry of a list; of an object the name comes first.
func (l *level) next() reflect.Type {
	if l.wantsName = l.object; !l.object && l.of != nil && l.of.Kind() == reflect.Slice {
		return l.of.Elem()
	}
	return nil
}

// field takes a name, and gives its value's type.
func (l *level) field(name string) (reflect.Type, error) {
	isStruct := l.of != nil && l.of.Kind() == reflect.Struct
	if slices.ContainsFunc(l.names, func(n string) bool { return n == name || isStruct && strings.EqualFold(n, name) }) {
		return nil, fmt.Errorf("the configuration: %q is given twice", name)
	}
	l.names = append(l.names, name)
	switch {
	case isStruct:
		return fieldOf(l.of, name)
	case l.of != nil && l.of.Kind() == reflect.Map:
		return l.of.Elem(), nil
	}
	return nil, nil
}

func fieldOf(t reflect.Type, name string) (reflect.Type, error) {
	var known []string
	for i := range t.NumField() {
		own, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if own == name {
			return t.Field(i).Type, nil
		}
		if strings.EqualFold(own, name) {
			return nil, fmt.Errorf("the configuration: unknown field %+q: write %q", name, own)
		}
		known = append(known, own)
	}
	return nil, fmt.Errorf("the configuration: unknown field %+q: known here are %s", name, strings.Join(known, ", "))
}
