// Package bundle makes, signs, opens and reads bundles: what an edge believes
// about an API's keys.
//
// A bundle is two signed notes on top of content-addressed objects, built like
// a transparency log: the policy note (signed by policy signers, who may be
// offline) names the compiled policy and the publisher's keys; the manifest
// (signed by a publisher) names the root of the key tree. FORMAT.md describes
// every byte.
//
// An edge calls [Open], which verifies the two signatures and reads nothing of
// the tree, and then [Bundle.Find] for each key; nodes are verified when they
// are first read. The control plane calls [Publication.Sign].
// This package does no I/O: nodes come from a [NodeSource].
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/keystile/keystile/core/policy"
)

// Hash is the SHA-256 of an object, by which it is named.
type Hash [sha256.Size]byte

// HashOf returns the name of object.
func HashOf(object []byte) Hash { return sha256.Sum256(object) }

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// parseHash reads what [Hash.String] writes.
func parseHash(s string) (h Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != s {
		return h, fmt.Errorf("%q is not a hash of 64 lower-case hexadecimal digits", s)
	}
	return Hash(b), nil
}

// NodeSource gives nodes by their hash. The bytes are the caller's own: nobody
// changes them afterwards. They are verified by the caller.
type NodeSource interface {
	Node(Hash) ([]byte, error)
}

// NodeError says which node could not be had or believed.
type NodeError struct {
	Node Hash
	// Missing is true if the node could not be read, and false if what was read
	// is not a valid node at its place.
	Missing bool
	Err     error
}

func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %v", e.Node, e.Err) }
func (e *NodeError) Unwrap() error { return e.Err }

// Bundle is a verified bundle. It is immutable and safe for concurrent use.
type Bundle struct {
	Mark
	Policy *policy.Policy

	nodes   NodeSource
	allowed *allowed
	pinned  pins
}

// Open verifies notes and the compiled policy for an edge that trusts trust,
// and returns the bundle whose nodes come from nodes. It does not ask whether
// the bundle is still valid: see [Mark.CheckTime] and [Mark.CheckSuccession].
func Open(notes Notes, compiled []byte, nodes NodeSource, trust *Trust) (*Bundle, error) {
	mark, err := trust.Open(notes)
	if err != nil {
		return nil, err
	}
	if HashOf(compiled) != mark.PolicyNote.PolicyHash {
		return nil, errors.New("compiled policy: its bytes do not have the hash that the policy note names: publish again")
	}
	p, err := policy.Decode(compiled)
	if err != nil {
		return nil, err
	}
	allowed, err := newAllowed(&mark.PolicyNote, p)
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	return &Bundle{Mark: *mark, Policy: p, nodes: nodes, allowed: allowed}, nil
}

// Under verifies b's notes again, under other trust, and returns the bundle that
// they then are, with the same policy and nodes.
func (b *Bundle) Under(trust *Trust) (*Bundle, error) {
	m, err := trust.Open(b.Notes)
	if err != nil {
		return nil, err
	}
	return &Bundle{Mark: *m, Policy: b.Policy, nodes: b.nodes, allowed: b.allowed}, nil
}

// allowed are the kinds and environments that records may have.
type allowed struct{ kinds, environments []string }

func (n *PolicyNote) allowed() *allowed { return &allowed{n.Kinds, n.Environments} }

// same says whether what was verified under a is good under b too.
func (a *allowed) same(b *allowed) bool {
	return a == b || slices.Equal(a.kinds, b.kinds) && slices.Equal(a.environments, b.environments)
}

func newAllowed(note *PolicyNote, p *policy.Policy) (*allowed, error) {
	for _, k := range note.Kinds {
		if p.KindIndex(k) < 0 {
			return nil, fmt.Errorf("kind %q is not in the policy", k)
		}
	}
	for _, e := range note.Environments {
		if !slices.Contains(p.Environments, e) {
			return nil, fmt.Errorf("environment %q is not in the policy", e)
		}
	}
	return note.allowed(), nil
}
