package publish

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// spy writes down what is done with it.
type spy struct {
	name string
	done *[]string
	fail string // the step that fails
}

func (s spy) do(step string) error {
	*s.done = append(*s.done, s.name+" "+step)
	if s.fail == step {
		return errors.New("no space left")
	}
	return nil
}

func (s spy) Stage(context.Context, *Signed) (Staged, error) {
	if err := s.do("staged"); err != nil {
		return nil, err
	}
	return s, nil
}

func (s spy) Place(context.Context) error { return s.do("placed") }
func (s spy) Discard()                    { s.do("discarded") }

// Everything is staged before anything is placed, in the order of the sinks; what
// cannot be staged leaves nothing, and what cannot be placed stops what is after
// it.
func TestSinksInTheirOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		first, second string // what fails
		want          []string
	}{
		"both":             {"", "", []string{"a staged", "b staged", "a placed", "b placed"}},
		"second's stage":   {"", "staged", []string{"a staged", "b staged", "a discarded"}},
		"first's place":    {"placed", "", []string{"a staged", "b staged", "a placed"}},
		"second's place":   {"", "placed", []string{"a staged", "b staged", "a placed", "b placed"}},
		"nothing to stage": {"staged", "", []string{"a staged"}},
	} {
		var done []string
		staged, err := Sinks{spy{"a", &done, tt.first}, spy{"b", &done, tt.second}}.Stage(t.Context(), new(Signed))
		if err == nil {
			err = staged.Place(t.Context())
		}
		if !slices.Equal(done, tt.want) || (err == nil) != (tt.first+tt.second == "") {
			t.Errorf("%s: %q, %v", name, done, err)
		}
	}
}
