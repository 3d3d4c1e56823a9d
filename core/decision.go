package core

import (
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Outcome is what happens to a request.
type Outcome uint8

// The outcomes. The zero value denies.
const (
	Deny   Outcome = iota // send the decision's answer, and nothing upstream
	Allow                 // pass the request on, with the decision's header changes
	Answer                // the edge itself answers: a CORS preflight
)

// Header is one header line.
type Header struct{ Name, Value string }

// Decision is what to do with one request. What it refers to is shared and must
// not be changed.
type Decision struct {
	Outcome Outcome
	// Reason is [policy.OK] unless the request is denied.
	Reason policy.Reason

	// Status, Header and Body are the answer to the client of a request that is
	// not passed on.
	Status int
	Header []Header
	Body   []byte
	// Close asks for the connection to be closed after the answer.
	Close bool
	// RequestID is in the answer's Request-Id and belongs into the log.
	RequestID string

	// Set are the header lines to set on a request that is passed on, after
	// those of [Decision.Strips] were removed.
	Set []Header

	// Key is the key that was found, also on many denials; nil if none was.
	Key *Key
	// Customer is the subject of the customer token, or "".
	Customer string
	// Route is the name of the route, or "".
	Route string
	// RequiredScope is the scope that the key lacked, or "".
	RequiredScope string
	// Err is what went wrong inside where Reason does not say it; it never
	// holds an API key.
	Err error

	policy    *policy.Policy
	keepToken bool
}

// Key is what may be known and logged of a key.
type Key struct {
	ID          string
	Kind        string
	Environment string
	Tenant      string
	Scopes      string // separated by a space
	Status      bundle.Status
}

// Policy is the name of the policy that decided, or "".
func (d *Decision) Policy() string {
	if d.policy == nil {
		return ""
	}
	return d.policy.Name
}

// Strips says whether a header of the request is removed before it goes on, and
// a trailer likewise: credentials, identity and method override, under all
// their aliases.
func (d *Decision) Strips(name string) bool {
	return d.policy == nil || d.policy.Strips(name, d.keepToken)
}

// Connection returns a line of the request's Connection header without the
// options that would make a proxy behind drop what [Decision.Set] sets.
func (d *Decision) Connection(line string) string {
	if d.policy == nil {
		return ""
	}
	return d.policy.CleanConnection(line)
}
