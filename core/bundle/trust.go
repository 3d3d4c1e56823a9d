package bundle

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/edwards25519"
	"golang.org/x/mod/sumdb/note"
)

// Trust is what an edge is configured to believe: whose policy notes, how many
// signatures, and for which bundle and audience.
type Trust struct {
	signers   []verifier
	threshold int
	name      string
	audience  string
}

// DefaultAudience is the audience unless a configuration names another.
const DefaultAudience = "default"

type verifier struct {
	note.Verifier
	key publicKey
}

// publicKey is an Ed25519 key, whatever name it goes by.
type publicKey [32]byte

// NewTrust trusts policy notes that threshold of the given verifier keys have
// signed. Each key is checked: 32 bytes, canonical, on the curve, not of low
// order, and no two the same (R55). The note must be for audience, and for the
// bundle called name unless that is empty.
func NewTrust(name, audience string, threshold int, keys ...string) (*Trust, error) {
	t := &Trust{threshold: threshold, name: name, audience: audience}
	if audience == "" {
		return nil, errors.New("no audience is given")
	}
	if threshold < 1 || threshold > len(keys) {
		return nil, fmt.Errorf("%d of %d signatures are demanded: give at least 1, and as many keys", threshold, len(keys))
	}
	for _, k := range keys {
		v, err := parseVerifier(k)
		if err != nil {
			return nil, err
		}
		for _, other := range t.signers {
			if other.key == v.key {
				return nil, fmt.Errorf("trusted keys %q and %q are one key under two names", other.Name(), v.Name())
			}
		}
		t.signers = append(t.signers, v)
	}
	return t, nil
}

// Lists says whether a signed policy note lists a publisher who has signed m.
func (t *Trust) Lists(policyNote []byte, m *Mark) (bool, error) {
	n, err := t.openPolicyNote(policyNote)
	if err != nil {
		return false, fmt.Errorf("policy note: %w", err)
	}
	for _, p := range n.Publishers {
		v, err := parseVerifier(p)
		if err != nil {
			return false, fmt.Errorf("publisher: %w", err)
		}
		if slices.Contains(m.signedBy, v.key) {
			return true, nil
		}
	}
	return false, nil
}

// ConfiguredTrust is [NewTrust] for what an operator has written: no audience is
// [DefaultAudience], and no threshold is 1.
func ConfiguredTrust(name, audience string, threshold int, keys ...string) (*Trust, error) {
	if len(keys) == 0 {
		return nil, errors.New("it has no signer: nothing could be believed; `caddy keystile init` prints them")
	}
	return NewTrust(name, cmp.Or(audience, DefaultAudience), cmp.Or(threshold, 1), keys...)
}

// Audience is the audience whose bundles are believed.
func (t *Trust) Audience() string { return t.audience }

// HoldsPrivateKey says whether a signing key, in the form of
// golang.org/x/mod/sumdb/note, is in s.
func HoldsPrivateKey(s string) bool { return strings.Contains(strings.ToUpper(s), "PRIVATE+KEY+") }

// ErrPrivateKey says that a private key was given where a verifier key belongs.
var ErrPrivateKey = errors.New("a private key, which is not shown here, stands where a verifier key is expected: whoever can read it there, " +
	"in a log or in a copy of the configuration, can sign. Replace it (`caddy keystile bundle rotate`), and name signers.txt, " +
	"which holds the verifier keys, or the verifier key of the new one")

// parseVerifier reads a key in the form of golang.org/x/mod/sumdb/note. Errors name it
// by its name and hash alone: what follows may be a private key that has lost its head.
func parseVerifier(s string) (v verifier, err error) {
	if HoldsPrivateKey(s) {
		return v, ErrPrivateKey
	}
	v.Verifier, err = note.NewVerifier(s)
	if err != nil {
		return v, fmt.Errorf("verifier key %s is malformed: it has the form name+hash+base64, as in signers.txt", named(s))
	}
	// NewVerifier has checked the form and the hash; the key itself is ours to check.
	_, rest, _ := strings.Cut(s, "+")
	_, b64, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || len(raw) != 1+len(v.key) {
		return v, fmt.Errorf("verifier key %s does not hold an Ed25519 key of 32 bytes", named(s))
	}
	copy(v.key[:], raw[1:])
	point, err := new(edwards25519.Point).SetBytes(v.key[:])
	switch {
	case err != nil:
		return v, fmt.Errorf("verifier key %s is not a point of Ed25519", named(s))
	case !bytes.Equal(point.Bytes(), v.key[:]):
		return v, fmt.Errorf("verifier key %s is not in canonical form", named(s))
	case new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1:
		return v, fmt.Errorf("verifier key %s is of low order: anyone can sign for it", named(s))
	}
	return v, nil
}

// named is the name and the hash of a verifier key; what is none has no name.
func named(s string) string {
	name, rest, ok := strings.Cut(s, "+")
	hash, _, ok2 := strings.Cut(rest, "+")
	if !ok || !ok2 || len(hash) != 8 || len(name) > 64 {
		return fmt.Sprintf("of %d characters", len(s))
	}
	return fmt.Sprintf("%q", name+"+"+hash)
}

// ErrForeign is the error of a bundle that is not for this edge, and does not become so
// by waiting: it has another name or audience, other signers, or is no bundle at all.
var ErrForeign = errors.New("the bundle is not for this edge")

// foreignError is an [ErrForeign] that says why.
type foreignError string

func (e foreignError) Error() string { return string(e) }

// Is says that it is [ErrForeign].
func (e foreignError) Is(target error) bool { return target == ErrForeign }

func foreign(format string, args ...any) error { return foreignError(fmt.Sprintf(format, args...)) }

var errUntrusted = errors.New("none of the trusted keys has signed it")

// openNote verifies the exact bytes of msg before anything in them is parsed
// and returns the text with the keys that signed it, each once. Lines
// of unknown signers are ignored; a bad signature by a known key is an error
// (R54).
func openNote(msg []byte, known []verifier) (text string, signed []publicKey, err error) {
	if len(msg) > MaxNote {
		return "", nil, fmt.Errorf("it has %d bytes: at most %d are possible", len(msg), MaxNote)
	}
	list := make([]note.Verifier, len(known))
	for i, v := range known {
		list[i] = v.Verifier
	}
	n, err := note.Open(msg, note.VerifierList(list...))
	if err != nil {
		var unverified *note.UnverifiedNoteError
		if errors.As(err, &unverified) {
			return "", nil, errUntrusted
		}
		return "", nil, err
	}
	for _, sig := range n.Sigs {
		for _, v := range known {
			if v.Name() == sig.Name && v.KeyHash() == sig.Hash {
				signed = append(signed, v.key)
			}
		}
	}
	return n.Text, signed, nil
}

func (t *Trust) openPolicyNote(msg []byte) (*PolicyNote, error) {
	text, signed, err := openNote(msg, t.signers)
	if errors.Is(err, errUntrusted) {
		return nil, foreign("%v", err)
	}
	if err != nil {
		return nil, err
	}
	if len(signed) < t.threshold {
		return nil, foreign("%d of the trusted keys have signed it, and %d are needed", len(signed), t.threshold)
	}
	n, err := parsePolicyNote(text)
	if err != nil {
		return nil, err
	}
	if n.Audience != t.audience {
		return nil, foreign("it is for the audience %q, and this edge is of %q", n.Audience, t.audience)
	}
	if t.name != "" && n.Name != t.name {
		return nil, foreign("it is for the bundle %q, and this one is configured as %q", n.Name, t.name)
	}
	return n, nil
}

// openManifest verifies the manifest of m's notes under m's policy note.
func (m *Mark) openManifest() error {
	var publishers []verifier
	for _, k := range m.PolicyNote.Publishers {
		v, err := parseVerifier(k)
		if err != nil {
			return fmt.Errorf("publisher: %w", err)
		}
		publishers = append(publishers, v)
		m.publishers = append(m.publishers, v.key)
	}
	text, signed, err := openNote(m.Notes.Manifest, publishers)
	if err != nil {
		return err
	}
	manifest, err := parseManifest(text)
	if err != nil {
		return err
	}
	if manifest.PolicyNoteHash != m.PolicyNote.hash {
		return errors.New("it was signed under another policy note")
	}
	m.Manifest, m.signedBy = *manifest, signed
	return nil
}
