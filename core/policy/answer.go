package policy

import (
	"errors"
	"strings"
)

// Answer is what the client gets for one reason.
type Answer struct {
	Status      int
	ContentType string
	Challenge   string // WWW-Authenticate, or ""
	// Body is the exact text. ${required_scope} and ${current_scope} stand for
	// the scope that was missing and those that the key has, JSON-escaped.
	Body string
	// ByRequired has the bodies that replace Body where a certain scope was
	// missing.
	ByRequired []RequiredBody

	body     bodyTemplate
	required []bodyTemplate
}

// RequiredBody is a body for one missing scope.
type RequiredBody struct{ Scope, Body string }

const (
	requiredVar = "${required_scope}"
	currentVar  = "${current_scope}"
)

// bodyTemplate is a body in pieces; with one piece it is sent as it is.
type bodyTemplate [][]byte

func (a *Answer) init() error {
	if a.Status < 200 || a.Status > 599 {
		return errors.New("the status is not between 200 and 599")
	}
	if err := checkHeaderValue(a.Challenge); err != nil {
		return err
	}
	if err := checkHeaderValue(a.ContentType); err != nil {
		return err
	}
	var err error
	if a.body, err = parseBody(a.Body); err != nil {
		return err
	}
	a.required = nil
	for _, r := range a.ByRequired {
		t, err := parseBody(r.Body)
		if err != nil {
			return err
		}
		a.required = append(a.required, t)
	}
	return nil
}

func parseBody(s string) (t bodyTemplate, err error) {
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			return append(t, []byte(s)), nil
		}
		t = append(t, []byte(s[:i]))
		s = s[i:]
		switch {
		case strings.HasPrefix(s, requiredVar):
			t = append(t, []byte(requiredVar))
			s = s[len(requiredVar):]
		case strings.HasPrefix(s, currentVar):
			t = append(t, []byte(currentVar))
			s = s[len(currentVar):]
		default:
			return nil, errors.New("the body names a value other than ${required_scope} and ${current_scope}")
		}
	}
}

// Render returns the body, for the scope that was missing and those granted,
// which are separated by spaces. The caller must not change it.
func (a *Answer) Render(required, granted string) []byte {
	t := a.body
	for i, r := range a.ByRequired {
		if r.Scope == required {
			t = a.required[i]
		}
	}
	if len(t) == 1 {
		return t[0]
	}
	var out []byte
	for _, part := range t {
		switch string(part) {
		case requiredVar:
			out = appendJSON(out, required)
		case currentVar:
			out = appendJSON(out, granted)
		default:
			out = append(out, part...)
		}
	}
	return out
}

// appendJSON appends s as the inside of a JSON string. Scope names are checked
// ASCII, so quote and backslash are all that could need it; anything else is
// replaced rather than trusted.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c > 0x7e:
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return b
}

// checkHeaderValue says why s cannot be a header field's value: only visible
// ASCII and inner spaces are sent (R38).
func checkHeaderValue(s string) error {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return errors.New("a header value has a character other than visible ASCII and space")
		}
	}
	if s != strings.TrimSpace(s) {
		return errors.New("a header value begins or ends with a space")
	}
	return nil
}

// CheckIdentityValue says why s cannot be sent upstream as one part of an
// identity header: visible ASCII without comma, space and quotes (R38).
func CheckIdentityValue(s string) error {
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c > 0x7e || c == ',' || c == '"' || c == '\\' {
			return errors.New("use visible ASCII without space, comma, quote and backslash")
		}
	}
	return nil
}
