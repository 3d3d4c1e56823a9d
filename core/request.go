package core

import (
	"net/netip"

	"github.com/keystile/keystile/core/credential"
)

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

	// Headers gives header lines. It is not asked before the transport check
	// has passed (R2).
	Headers credential.Headers
}
