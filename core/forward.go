package core

import (
	"fmt"
	"strings"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/policy"
)

// What goes on after a decision is one request, or one WebSocket, without the API key
// and without anything that a client could forge for the upstream. The steps here look
// for what would make it something else; [Decision.Line] says what becomes of a line.

// oneRequest is the end of step 2: no line asks the upstream to take the request for
// another one, or the connection for more than one request (R5, R20). It looks at
// every line, and notes those that the end of step 4 has to look into.
func (c *check) oneRequest() policy.Reason {
	p := c.snapshot.bundle.Policy
	shortest := p.Grammar().Shortest()
	upgrades, named, alone := 0, false, false
	for i := range c.lines {
		l := &c.lines[i]
		field := p.Field(l.Name)
		switch field {
		case policy.FieldOverride:
			if l.Value != c.request.Method {
				return policy.Malformed
			}
		case policy.FieldUpgrade:
			upgrades++
			named = named || namesWebSocket(l.Value)
			alone = ascii.EqualFold(l.Value, webSocket)
		}
		if field != policy.FieldRemoved && len(l.Value) >= shortest {
			c.long = append(c.long, i)
		}
	}
	if named && (upgrades > 1 || !alone || !c.handshake()) {
		return policy.Malformed
	}
	c.decision.webSocket = named
	return policy.OK
}

const webSocket = "websocket"

// namesWebSocket says whether a line of Upgrade names WebSocket, alone or in a list,
// with a version or without.
func namesWebSocket(line string) bool {
	for option := range strings.SplitSeq(line, ",") {
		protocol, _, _ := strings.Cut(option, "/")
		if ascii.EqualFold(strings.Trim(protocol, " \t"), webSocket) {
			return true
		}
	}
	return false
}

// handshake says whether the rest of the request is a WebSocket's handshake (RFC 6455
// section 4.1).
func (c *check) handshake() bool {
	keys, _ := count(c.lines, "Sec-WebSocket-Key")
	versions, _ := count(c.lines, "Sec-WebSocket-Version")
	return c.request.HTTP11 && c.request.Method == "GET" && !c.request.Body && keys == 1 && versions == 1
}

// keyElsewhere is the end of step 4: the API key does not go on under another name. A
// line that a proxy before may have written is not simply taken away.
func (c *check) keyElsewhere() policy.Reason {
	if credential.Holds(c.request.Authority, c.key) {
		return policy.Malformed
	}
	for _, i := range c.long {
		l := &c.lines[i]
		if !credential.Holds(l.Value, c.key) {
			continue
		}
		c.decision.elsewhere = true
		if policy.FramesMessage(l.Name) {
			return policy.Malformed
		}
	}
	return policy.OK
}

// Line says what becomes of a header line of the request, on every outcome on which
// anything of it goes on: to the next handler, or to an error page. ok is false if it
// is removed: credentials, identity, a method override, another protocol, under all
// their aliases, and the API key under any name (R20, R32, R35–R37). Of a request that
// was denied, maybe before its key was looked for, nothing goes on that looks like a key.
func (d *Decision) Line(name, value string) (to string, ok bool) {
	switch {
	case d.policy == nil:
		return "", false // nothing is known of what it means
	case d.elsewhere && credential.Holds(value, d.key):
		return "", false
	case d.Outcome == Deny && d.policy.Grammar().WithinEncoded(value):
		return "", false
	}
	switch d.policy.Field(name) {
	case policy.FieldOther:
		return value, true
	case policy.FieldToken:
		return value, d.keepToken && d.policy.IsToken(name)
	case policy.FieldUpgrade:
		return value, d.webSocket
	case policy.FieldRequestID:
		return value, d.RequestID == ""
	case policy.FieldConnection:
		to = d.policy.CleanConnection(value, d.webSocket)
		return to, to != ""
	}
	return "", false
}

// MayPass says whether a request for this path and query, which was denied, may go on to
// an error page: not one that holds what looks like a key, nor any where no policy says
// what a key looks like (R32).
func (d *Decision) MayPass(target string) bool {
	return d.policy != nil && !d.policy.Grammar().WithinEncoded(target)
}

// Trailer says whether a line of the request's trailer goes on. What means something
// in a header never does in a trailer (R30). A name counts in any case: hosts make
// names of what a Trailer line says.
func (d *Decision) Trailer(name, value string) bool {
	if d.policy == nil || d.policy.Field(name) != policy.FieldOther {
		return false
	}
	return d.key == "" || !credential.Holds(value, d.key) && !strings.Contains(strings.ToLower(name), strings.ToLower(d.key))
}

// WebSocket says whether the request opens a WebSocket. After any other request an
// answer of 101 ends the connection.
func (d *Decision) WebSocket() bool { return d.webSocket }

// Format prints what may be known of a decision, with every verb: never the API key.
func (d Decision) Format(f fmt.State, _ rune) {
	id := "none"
	if d.Key != nil {
		id = d.Key.ID
	}
	fmt.Fprintf(f, "{reason %s, status %d, key %s, error %v}", d.Reason, d.Status, id, d.Err)
}
