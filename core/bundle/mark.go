package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Notes are the signed texts of a bundle, as exact bytes.
type Notes struct{ PolicyNote, Manifest []byte }

// Mark is a verified pair of notes: what a bundle says of itself, and what an
// edge remembers of the highest bundle that it has accepted.
type Mark struct {
	PolicyNote PolicyNote
	Manifest   Manifest
	// Notes are the bytes that were verified.
	Notes Notes

	publishers []publicKey // that the policy note lists
	signedBy   []publicKey // those of them that signed the manifest
}

// Open verifies the signatures of both notes and that they belong together.
func (t *Trust) Open(notes Notes) (*Mark, error) {
	note, err := t.openPolicyNote(notes.PolicyNote)
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	m := &Mark{PolicyNote: *note, Notes: notes}
	if err := m.openManifest(); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
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

// Errors of [Mark.CheckTime].
var (
	ErrExpired = errors.New("the bundle has expired: `bundle renew` signs it again")
	ErrFuture  = errors.New("the bundle was signed in this clock's future: check the clock here and at the publisher")
	ErrTooOld  = errors.New("the bundle is older than max_age: check that `bundle renew` runs and that its file gets here")
)

// CheckTime says why the bundle cannot be used at now. maxAge 0 is no bound. A
// policy note of the future is as bad as a manifest: what is signed after it at the
// right time would be older, for as long as its signer's clock was ahead.
func (m *Mark) CheckTime(now time.Time, clockSkew, maxAge time.Duration) error {
	switch ms, signed := now.UnixMilli(), m.Manifest.Version; {
	case max(signed, m.PolicyNote.Version) > ms+clockSkew.Milliseconds():
		return ErrFuture
	case ms >= m.Manifest.Expires:
		return ErrExpired
	case maxAge > 0 && ms-signed > maxAge.Milliseconds():
		return ErrTooOld
	}
	return nil
}

// Life is the time from the bundle's version to its expiry.
func (m *Mark) Life() time.Duration {
	return time.Duration(m.Manifest.Expires-m.Manifest.Version) * time.Millisecond
}

// Left is how much of the bundle's life is left at now; negative once it has
// expired.
func (m *Mark) Left(now time.Time) time.Duration {
	return time.UnixMilli(m.Manifest.Expires).Sub(now)
}

// Due says how much a bundle wants to be renewed.
type Due int

// How much a bundle wants to be renewed.
const (
	// Fresh is a bundle of whose life less than half is gone.
	Fresh Due = iota
	// HalfGone is one whose renewal does not arrive.
	HalfGone
	// NearEnd is one that has an hour left; of a life of less than four hours, a
	// quarter.
	NearEnd
)

// Due says how much the bundle wants to be renewed at now.
func (m *Mark) Due(now time.Time) Due {
	switch life, left := m.Life(), m.Left(now); {
	case left <= min(time.Hour, life/4):
		return NearEnd
	case left <= life/2:
		return HalfGone
	}
	return Fresh
}

// Errors of [Mark.CheckSuccession] and [MinVersion.Check].
var (
	ErrRollback = errors.New("it is older than what was accepted before")
	ErrForked   = errors.New("another text was signed under the version in use: a signing key may be in other hands")
)

// CheckSuccession says why m cannot follow last, which may be nil. A manifest
// that nobody has signed whom m's policy note still lists counts for nothing:
// so a publisher's key that was stolen cannot bar the way to what its successor
// signs.
func (m *Mark) CheckSuccession(last *Mark) error {
	if last == nil {
		return nil
	}
	switch {
	case m.PolicyNote.Version < last.PolicyNote.Version:
		return fmt.Errorf("policy version %d after %d: %w", m.PolicyNote.Version, last.PolicyNote.Version, ErrRollback)
	case m.PolicyNote.Version == last.PolicyNote.Version && m.PolicyNote.hash != last.PolicyNote.hash:
		return fmt.Errorf("policy version %d: %w", m.PolicyNote.Version, ErrForked)
	case !slices.ContainsFunc(last.signedBy, func(k publicKey) bool { return slices.Contains(m.publishers, k) }):
		return nil
	case m.Manifest.Version < last.Manifest.Version:
		return fmt.Errorf("version %d after %d: %w", m.Manifest.Version, last.Manifest.Version, ErrRollback)
	case m.Manifest.Version == last.Manifest.Version && m.Manifest != last.Manifest:
		return fmt.Errorf("version %d: %w", m.Manifest.Version, ErrForked)
	}
	return nil
}

// MinVersion is the lowest bundle that an edge accepts, whatever it remembers: the
// bound against rollback where nothing can be kept across restarts. The zero
// value accepts every version.
type MinVersion struct {
	Version       int64 // of the manifest
	PolicyVersion int64 // of the policy note
}

// Check says why m is below the floor.
func (f MinVersion) Check(m *Mark) error {
	switch {
	case m.PolicyNote.Version < f.PolicyVersion:
		return fmt.Errorf("policy version %d, and %d is the lowest configured: %w", m.PolicyNote.Version, f.PolicyVersion, ErrRollback)
	case m.Manifest.Version < f.Version:
		return fmt.Errorf("version %d, and %d is the lowest configured: %w", m.Manifest.Version, f.Version, ErrRollback)
	}
	return nil
}

// stateLine is the first line of a remembered pair of notes.
const stateLine = "keystile state v1"

// AppendState appends notes in the form in which an edge keeps them: as they
// were signed, one after the other. FORMAT.md has it.
func AppendState(b []byte, notes Notes) []byte {
	b = fmt.Appendf(b, "%s\npolicy %d\nmanifest %d\n\n", stateLine, len(notes.PolicyNote), len(notes.Manifest))
	return append(append(b, notes.PolicyNote...), notes.Manifest...)
}

// ParseState reads what [AppendState] wrote. It verifies nothing: [Trust.Open]
// does.
func ParseState(b []byte) (Notes, error) {
	head, rest, ok := bytes.Cut(b, []byte("\n\n"))
	l := lines{rest: string(head) + "\n"}
	l.first(stateLine)
	policy, manifest := l.number("policy"), l.number("manifest")
	if err := l.done(); err != nil {
		return Notes{}, err
	}
	if !ok || policy > MaxNote || manifest > MaxNote || policy+manifest != int64(len(rest)) {
		return Notes{}, errors.New("it is truncated, or longer than it says")
	}
	notes := Notes{rest[:policy:policy], rest[policy:]}
	if !bytes.Equal(AppendState(nil, notes), b) {
		return Notes{}, errors.New("it is not in canonical form")
	}
	return notes, nil
}
