// Package document reads documents in YAML strictly, and says where in the file a
// mistake is.
package document

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/token"
)

// Error is a mistake in a document.
type Error struct {
	File         string
	Line, Column int
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// Place is where in a document something stands.
type Place struct{ Line, Column int }

// PlaceOf is where t stands.
func PlaceOf(t *token.Token) Place {
	if t == nil || t.Position == nil {
		return Place{1, 1}
	}
	return Place{t.Position.Line, t.Position.Column}
}

// Errorf makes an [Error] at p, of a file that [In] names.
func (p Place) Errorf(format string, args ...any) error {
	return &Error{Line: max(p.Line, 1), Column: max(p.Column, 1), Message: fmt.Sprintf(format, args...)}
}

// Decode reads YAML strictly: unknown and duplicate fields are errors, and
// every error has its place in file.
func Decode(file string, source []byte, into any) (err error) {
	defer func() {
		// The library trips over some input that is no YAML (FuzzCompile has one).
		if recover() != nil {
			err = &Error{file, 1, 1, "this is not YAML"}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(source), yaml.Strict())
	if err := dec.Decode(into); err != nil {
		return In(file, err)
	}
	return nil
}

// In turns an error of the YAML library, or one of ours on its way
// through it, into an [Error] of the file.
func In(file string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		own.File = file
		return own
	}
	var theirs yaml.Error
	if errors.As(err, &theirs) {
		p := PlaceOf(theirs.GetToken())
		return &Error{file, p.Line, p.Column, theirs.GetMessage()}
	}
	return &Error{file, 1, 1, err.Error()}
}
