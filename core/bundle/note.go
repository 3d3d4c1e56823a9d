package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// First lines of the two notes. They keep a signature of one from being taken
// for a signature of the other.
const (
	policyNoteLine = "keystile policy v1"
	manifestLine   = "keystile manifest v1"
	digestName     = "sha256"
)

// MaxNote is the largest note accepted, in bytes.
const MaxNote = 64 << 10

// PolicyNote says which policy is in force for a bundle, and who may publish
// keys under it.
type PolicyNote struct {
	Name       string // the bundle's name
	Audience   string // the group of edges that it is for
	Version    int64  // Unix milliseconds of signing
	PolicyHash Hash   // of the compiled policy
	// Kinds and Environments are those that may be published.
	Kinds, Environments []string
	// Publishers are verifier keys; a manifest needs the signature of one.
	Publishers []string

	hash Hash // of the text
}

// Manifest says which keys are in a bundle now.
type Manifest struct {
	PolicyNoteHash Hash   // of the policy note's text
	Version        int64  // Unix milliseconds of signing
	Expires        int64  // Unix milliseconds; exclusive
	Keys           uint64 // number of records
	Root           Hash   // of the key tree's root node
}

// Hash names the note in a manifest: the hash of its text without signatures.
func (n *PolicyNote) Hash() Hash { return HashOf([]byte(n.text())) }

func (n *PolicyNote) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nname %s\naudience %s\nversion %d\npolicy %s\n", policyNoteLine, n.Name, n.Audience, n.Version, n.PolicyHash)
	for _, k := range n.Kinds {
		fmt.Fprintf(&b, "kind %s\n", k)
	}
	for _, e := range n.Environments {
		fmt.Fprintf(&b, "environment %s\n", e)
	}
	for _, p := range n.Publishers {
		fmt.Fprintf(&b, "publisher %s\n", p)
	}
	return b.String()
}

func (m *Manifest) text() string {
	return fmt.Sprintf("%s\npolicy %s\nversion %d\nexpires %d\nkeys %d\nroot %s\ndigest %s\n",
		manifestLine, m.PolicyNoteHash, m.Version, m.Expires, m.Keys, m.Root, digestName)
}

func parsePolicyNote(text string) (*PolicyNote, error) {
	l := lines{rest: text}
	l.first(policyNoteLine)
	n := &PolicyNote{
		Name: l.value("name"), Audience: l.value("audience"), Version: l.number("version"), PolicyHash: l.hash("policy"),
		Kinds: l.values("kind"), Environments: l.values("environment"), Publishers: l.values("publisher"),
	}
	if err := l.done(); err != nil {
		return nil, err
	}
	if n.text() != text {
		return nil, errors.New("its text is not in canonical form")
	}
	if n.Name == "" || len(n.Kinds) == 0 || len(n.Environments) == 0 || len(n.Publishers) == 0 {
		return nil, errors.New("name, kind, environment and publisher are needed")
	}
	n.hash = HashOf([]byte(text))
	return n, nil
}

func parseManifest(text string) (*Manifest, error) {
	l := lines{rest: text}
	l.first(manifestLine)
	m := &Manifest{
		PolicyNoteHash: l.hash("policy"), Version: l.number("version"), Expires: l.number("expires"),
		Keys: uint64(l.number("keys")), Root: l.hash("root"),
	}
	if digest := l.value("digest"); digest != digestName {
		l.fail("digest algorithm %q is not known to this version: update the edge", digest)
	}
	if err := l.done(); err != nil {
		return nil, err
	}
	if m.text() != text {
		return nil, errors.New("its text is not in canonical form")
	}
	if life := m.Expires - m.Version; life <= 0 || life > MaxLife.Milliseconds() {
		return nil, fmt.Errorf("its life is %v: more than none and at most %v are possible", time.Duration(life)*time.Millisecond, MaxLife)
	}
	return m, nil
}

// lines reads "name value" lines in a fixed order.
type lines struct {
	rest string
	err  error
}

func (l *lines) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

func (l *lines) first(want string) {
	line, rest, _ := strings.Cut(l.rest, "\n")
	switch {
	case HoldsPrivateKey(line):
		l.fail("it is a private key, which is not shown here: its first line is not %q", want)
	case line != want:
		l.fail("its first line is %q, not %q", line, want)
	}
	l.rest = rest
}

func (l *lines) value(name string) string {
	line, rest, ok := strings.Cut(l.rest, "\n")
	value, named := strings.CutPrefix(line, name+" ")
	if !ok || !named || value == "" {
		l.fail("the line %q is missing where it belongs", name)
		return ""
	}
	l.rest = rest
	return value
}

func (l *lines) values(name string) (out []string) {
	for l.err == nil && strings.HasPrefix(l.rest, name+" ") {
		v := l.value(name)
		for _, other := range out {
			if v == other {
				l.fail("%s %q is given twice", name, v)
			}
		}
		out = append(out, v)
	}
	return out
}

func (l *lines) number(name string) int64 {
	n, err := strconv.ParseInt(l.value(name), 10, 54)
	if l.err == nil && (err != nil || n < 0) {
		l.fail("the line %q has no number of at most 53 bits", name)
	}
	return n
}

func (l *lines) hash(name string) Hash {
	v := l.value(name)
	h, err := parseHash(v)
	if err != nil && l.err == nil {
		l.err = err
	}
	return h
}

func (l *lines) done() error {
	if l.err == nil && l.rest != "" {
		line, _, _ := strings.Cut(l.rest, "\n")
		l.fail("the line %q does not belong here", line)
	}
	return l.err
}

// Text is what policy signers sign.
func (n *PolicyNote) Text() []byte { return []byte(n.text()) }

// ParsePolicyNote reads the text of a policy note, with or without signatures,
// for somebody who is going to sign it. It verifies nothing.
func ParsePolicyNote(b []byte) (*PolicyNote, error) {
	text, _, _ := bytes.Cut(b, []byte("\n\n"))
	n, err := parsePolicyNote(strings.TrimSuffix(string(text), "\n") + "\n")
	if err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	return n, nil
}

// ParseManifest reads the text of a manifest. It verifies nothing: [Trust.Open]
// does.
func ParseManifest(b []byte) (*Manifest, error) {
	text, _, _ := bytes.Cut(b, []byte("\n\n"))
	m, err := parseManifest(string(text) + "\n")
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, nil
}

// MergeNotes joins the signatures that several signers gave to one text, each
// line once. It verifies nothing.
func MergeNotes(signed ...[]byte) ([]byte, error) {
	var merged []byte
	for i, b := range signed {
		text, lines, ok := bytes.Cut(b, []byte("\n\n"))
		if !ok || len(lines) == 0 || lines[len(lines)-1] != '\n' {
			return nil, fmt.Errorf("note %d has no signature: sign it first", i+1)
		}
		if i == 0 {
			merged = append(append(merged, text...), "\n\n"...)
		}
		own, have, _ := bytes.Cut(merged, []byte("\n\n"))
		if !bytes.Equal(text, own) {
			return nil, fmt.Errorf("note %d has another text than the first: all must sign the same", i+1)
		}
		for line := range bytes.Lines(lines) {
			if !slices.ContainsFunc(slices.Collect(bytes.Lines(have)), func(l []byte) bool { return bytes.Equal(l, line) }) {
				merged = append(merged, line...)
			}
		}
	}
	return merged, nil
}

// SignPolicyNote returns the signed note of n. Signatures of other signers are
// added by [MergeNotes]: the text does not change.
func SignPolicyNote(n *PolicyNote, signers ...note.Signer) ([]byte, error) {
	text := n.text()
	if _, err := parsePolicyNote(text); err != nil {
		return nil, fmt.Errorf("policy note: %w", err)
	}
	return note.Sign(&note.Note{Text: text}, signers...)
}

// signManifest returns the signed note of m.
func signManifest(m *Manifest, signer note.Signer) ([]byte, error) {
	text := m.text()
	if _, err := parseManifest(text); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return note.Sign(&note.Note{Text: text}, signer)
}

// NextVersion returns the version of what is signed at now after last, which is
// 0 if nothing was. It refuses where last is so far ahead of now that no edge
// would accept a higher one.
func NextVersion(last int64, now time.Time) (int64, error) {
	ms := now.UnixMilli()
	if last > ms+DefaultClockSkew.Milliseconds() {
		return 0, fmt.Errorf("the last version was signed %v ahead of this clock: correct the clock, or start anew with `bundle reset`",
			time.Duration(last-ms)*time.Millisecond)
	}
	return max(last+1, ms), nil
}
