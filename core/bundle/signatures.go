package bundle

import (
	"fmt"
	"slices"
)

// Signature says of a verifier key whether it has signed.
type Signature struct {
	// Key is the verifier key's name and hash, `name+hash`, by which signatures name
	// it too.
	Key    string `json:"key"`
	Signed bool   `json:"signed"`
}

// Threshold is how many of the trusted signers must have signed a policy note.
func (t *Trust) Threshold() int { return t.threshold }

// Signatures are those of the trusted policy signers, in the order of the
// configuration, on m's policy note; m may be nil.
func (t *Trust) Signatures(m *Mark) []Signature {
	var signed []publicKey
	if m != nil {
		_, signed, _ = openNote(m.Notes.PolicyNote, t.signers) // verified before
	}
	return signatures(t.signers, signed)
}

// Signatures are those of the publishers that m's policy note lists, in its order, on
// m's manifest.
func (m *Mark) Signatures() []Signature {
	var publishers []verifier
	for _, k := range m.PolicyNote.Publishers {
		if v, err := parseVerifier(k); err == nil { // verified before
			publishers = append(publishers, v)
		}
	}
	return signatures(publishers, m.signedBy)
}

func signatures(keys []verifier, signed []publicKey) []Signature {
	list := make([]Signature, len(keys))
	for i, v := range keys {
		list[i] = Signature{fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()), slices.Contains(signed, v.key)}
	}
	return list
}
