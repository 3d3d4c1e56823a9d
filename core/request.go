package core

import "net/netip"

// Request is what a decision is made from: plain values that the host took from
// its connection and its parser, as they will reach the next handler.
type Request struct {
	// TLS says that the connection itself is TLS. Nothing that a client can
	// write decides it (R1).
	TLS bool
	// EarlyData says that the request came before the handshake was complete.
	EarlyData bool
	// SNI is the server name of the TLS handshake, or "".
	SNI string
	// Peer is the other end of the socket, for [Config.TLSTerminators].
	Peer netip.Addr
	// ClientIP gives the client's address, or the zero value if there is none
	// that can be believed, which no IP restriction allows (R40). It is asked for
	// keys that are limited to addresses alone; nil gives none.
	ClientIP func() netip.Addr

	// Method, Authority, Path and Query are raw: nothing is decoded or cleaned.
	// A target that is not in origin form is given as Path as it stands.
	Method    string
	Authority string
	Path      string
	Query     string
	// Rewritten says that the host's configuration has changed path or query
	// before, so that they are not what the policy speaks of (R15).
	Rewritten bool

	// HTTP11 says that the request came by HTTP/1.1, and Body that it has a body
	// (which it begins to be read of later). They are asked for WebSockets alone.
	HTTP11, Body bool

	// WithID asks for a [Decision.RequestID] on every outcome, not on denials alone.
	WithID bool

	// Headers gives the header lines. It is not asked before the transport check
	// has passed (R2).
	Headers Headers
}

// Headers gives the lines of a request's header, in any order; names in any case.
// The lines are only read, and not after the decision.
type Headers interface {
	Lines() []Header
}

// Lines are header lines that are at hand.
type Lines []Header

// Lines returns l.
func (l Lines) Lines() []Header { return l }
