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
// are first read. The control plane calls [Build] and [SignManifest].
// This package does no I/O: nodes come from a [NodeSource].
package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keystile/keystile/core/policy"
)

// Hash is the SHA-256 of an object, by which it is named.
type Hash [sha256.Size]byte

// HashOf returns the name of object.
func HashOf(object []byte) Hash { return sha256.Sum256(object) }

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what [Hash.String] writes.
func ParseHash(s string) (h Hash, err error) {
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

// Notes are the signed texts of a bundle, as exact bytes.
type Notes struct{ Policy, Manifest []byte }

// Bundle is a verified bundle. It is immutable and safe for concurrent use.
type Bundle struct {
	Note     PolicyNote
	Manifest Manifest
	Policy   *policy.Policy
	// Notes are the bytes that were verified.
	Notes Notes

	nodes   NodeSource
	allowed allowed
	pinned  pins
}

// Open verifies notes and the compiled policy for an edge that trusts trust,
// and returns the bundle whose nodes come from nodes. It does not ask whether
// the bundle is still valid: see [Bundle.CheckTime] and [Bundle.CheckSuccession].
func Open(notes Notes, compiled []byte, nodes NodeSource, trust *Trust) (*Bundle, error) {
	note, err := trust.openPolicyNote(notes.Policy)
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	manifest, err := openManifest(notes.Manifest, note)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if HashOf(compiled) != note.Policy {
		return nil, errors.New("compiled policy: its bytes do not have the hash that the policy note names: publish again")
	}
	p, err := policy.Decode(compiled)
	if err != nil {
		return nil, err
	}
	allowed, err := newAllowed(note, p)
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	return &Bundle{Note: *note, Manifest: *manifest, Policy: p, Notes: notes, nodes: nodes, allowed: allowed}, nil
}

// allowed are the kinds and environments that records may have.
type allowed struct{ kinds, environments []string }

func newAllowed(note *PolicyNote, p *policy.Policy) (a allowed, err error) {
	for _, k := range note.Kinds {
		if p.KindIndex(k) < 0 {
			return a, fmt.Errorf("kind %q is not in the policy", k)
		}
	}
	for _, e := range note.Environments {
		if !slices.Contains(p.Environments, e) {
			return a, fmt.Errorf("environment %q is not in the policy", e)
		}
	}
	return allowed{note.Kinds, note.Environments}, nil
}

// Limits of time.
const (
	// MaxLife is the longest time from version to expiry.
	MaxLife = 7 * 24 * time.Hour
	// DefaultLife is what a manifest gets unless told otherwise.
	DefaultLife = 24 * time.Hour
	// DefaultClockSkew is how far clocks may differ.
	DefaultClockSkew = time.Minute
)

// Errors of [Bundle.CheckTime].
var (
	ErrExpired = errors.New("the bundle has expired: `bundle renew` signs it again")
	ErrFuture  = errors.New("the bundle was signed in this clock's future: check the clock here and at the publisher")
	ErrTooOld  = errors.New("the bundle is older than max_age: check that the publisher's heartbeat arrives")
)

// CheckTime says why the bundle cannot be used at now. maxAge 0 is no bound.
func (b *Bundle) CheckTime(now time.Time, clockSkew, maxAge time.Duration) error {
	switch ms, signed := now.UnixMilli(), b.Manifest.Version; {
	case signed > ms+clockSkew.Milliseconds():
		return ErrFuture
	case ms >= b.Manifest.Expires:
		return ErrExpired
	case maxAge > 0 && ms-signed > maxAge.Milliseconds():
		return ErrTooOld
	}
	return nil
}

// Errors of [Bundle.CheckSuccession].
var (
	ErrRollback = errors.New("it is older than the one in use")
	ErrForked   = errors.New("another text was signed under the version in use: a signing key may be in other hands")
)

// CheckSuccession says why b cannot follow current, which may be nil.
func (b *Bundle) CheckSuccession(current *Bundle) error {
	if current == nil {
		return nil
	}
	switch {
	case b.Note.Version < current.Note.Version:
		return fmt.Errorf("policy version %d after %d: %w", b.Note.Version, current.Note.Version, ErrRollback)
	case b.Note.Version == current.Note.Version && b.Note.hash != current.Note.hash:
		return fmt.Errorf("policy version %d: %w", b.Note.Version, ErrForked)
	case b.Manifest.Version < current.Manifest.Version:
		return fmt.Errorf("version %d after %d: %w", b.Manifest.Version, current.Manifest.Version, ErrRollback)
	case b.Manifest.Version == current.Manifest.Version && b.Manifest != current.Manifest:
		return fmt.Errorf("version %d: %w", b.Manifest.Version, ErrForked)
	}
	return nil
}
