package bundle

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/policy"
)

// Publication is what does not change from one manifest to the next.
type Publication struct {
	Notes    Notes // Policy alone is set
	Compiled []byte
	Note     *PolicyNote
}

// NewPolicyNote returns the policy note for p, to be signed: all its kinds and
// environments may be published, by any of the publishers, which are verifier
// keys.
func NewPolicyNote(p *policy.Policy, name, audience string, version int64, publishers []string) *PolicyNote {
	n := &PolicyNote{
		Name: name, Audience: audience, Version: version, PolicyHash: HashOf(p.Encode()),
		Environments: p.Environments, Publishers: publishers,
	}
	for _, k := range p.Kinds {
		n.Kinds = append(n.Kinds, k.Name)
	}
	return n
}

// Publish makes the policy note for p, as [NewPolicyNote] does, and signs it.
func Publish(p *policy.Policy, name, audience string, version int64, publishers []string, signers ...note.Signer) (*Publication, error) {
	n := NewPolicyNote(p, name, audience, version, publishers)
	signed, err := SignPolicyNote(n, signers...)
	if err != nil {
		return nil, err
	}
	return &Publication{Notes: Notes{PolicyNote: signed}, Compiled: p.Encode(), Note: n}, nil
}

// Republish takes up a policy note that was signed before or elsewhere, for the
// compiled policy.
func Republish(signed, compiled []byte, trust *Trust) (*Publication, error) {
	n, err := trust.openPolicyNote(signed)
	if err != nil {
		return nil, err
	}
	if HashOf(compiled) != n.PolicyHash {
		return nil, errors.New("the note is for another policy")
	}
	return &Publication{Notes: Notes{PolicyNote: signed}, Compiled: compiled, Note: n}, nil
}

// Permits says why edges would refuse a record under the policy note.
func (p *Publication) Permits(r *Record) error {
	if !slices.Contains(p.Note.Kinds, r.Kind) || !slices.Contains(p.Note.Environments, r.Environment) {
		return fmt.Errorf("key %s: kind %q in environment %q is not in the policy note in force: edges would refuse it", r.KeyID, r.Kind, r.Environment)
	}
	return nil
}

// Signed is a whole bundle in memory, as a publisher hands it on.
type Signed struct {
	Notes    Notes
	Compiled []byte
	Nodes    *Nodes
}

// Sign builds the key tree of records, which it sorts, and signs a manifest for it.
func (p *Publication) Sign(records []Record, version int64, life time.Duration, publisher note.Signer) (*Signed, error) {
	nodes := new(Nodes)
	tree, err := Build(records, nodes.Add)
	if err != nil {
		return nil, err
	}
	notes, err := p.Manifest(tree, version, life, publisher)
	if err != nil {
		return nil, err
	}
	return &Signed{notes, p.Compiled, nodes}, nil
}

// Pack writes s as a packed file.
func (s *Signed) Pack(w io.Writer) error { return WritePack(w, s.Notes, s.Compiled, s.Nodes) }

// Open verifies s as an edge does that trusts trust.
func (s *Signed) Open(trust *Trust) (*Bundle, error) {
	return Open(s.Notes, s.Compiled, s.Nodes, trust)
}

// Manifest signs a manifest for tree under the publication and returns both
// notes.
func (p *Publication) Manifest(tree Tree, version int64, life time.Duration, publisher note.Signer) (Notes, error) {
	signed, err := signManifest(&Manifest{
		PolicyNoteHash: p.Note.Hash(), Version: version, Expires: version + life.Milliseconds(),
		Keys: tree.Keys, Root: tree.Root,
	}, publisher)
	return Notes{PolicyNote: p.Notes.PolicyNote, Manifest: signed}, err
}
