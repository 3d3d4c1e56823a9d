package core

import (
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
)

// Outcome is what happens to a request.
type Outcome uint8

// The outcomes. The zero value denies.
const (
	Deny    Outcome = iota // send the decision's answer, and nothing upstream
	Allow                  // pass the request on, with the decision's header changes
	Respond                // the edge itself answers: a CORS preflight
)

// Header is one header line.
type Header = credential.Header

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
	// RequestID is in a denial's Request-Id and belongs into the log. A request that
	// was not denied has one where its host asked for it ([Request.WithID]), and that
	// host sets it as the Request-Id that goes on.
	RequestID string

	// Set are the header lines to set on a request that is passed on, after all
	// others went through [Decision.Line].
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

	policy *policy.Policy
	entry  *entry        // of Key
	route  *policy.Route // of a denial
	// environments are those whose keys work on the host of a denial.
	environments policy.Set
	key          string // the API key, where the request has one
	keepToken    bool   // the customer token goes on
	webSocket    bool   // the request opens a WebSocket
	elsewhere    bool   // the API key stands in another line too
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
