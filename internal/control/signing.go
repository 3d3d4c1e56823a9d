package control

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
)

// NewSigningKey makes a key, writes it into a file that must not be there, and
// returns its verifier key.
func NewSigningKey(path, name string) (verifier string, err error) {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("signing key %q: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(private + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(path) // half a key would be in the way of the next try
		return "", fmt.Errorf("signing key: %w", err)
	}
	return public, nil
}

// SigningKey is a key that signs notes.
type SigningKey struct {
	note.Signer
	// Verifier is its public half, in the form of golang.org/x/mod/sumdb/note.
	Verifier string
}

// ReadSigningKey reads a file that [NewSigningKey] wrote. It refuses one that
// anybody but its owner can use.
func ReadSigningKey(path string) (*SigningKey, error) {
	raw, err := disk.ReadPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	private := strings.TrimSpace(string(raw))
	s, err := note.NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("signing key %s is malformed", path) // the library's error could quote it
	}
	verifier, err := verifierOf(private)
	if err != nil {
		return nil, fmt.Errorf("signing key %s is malformed", path)
	}
	return &SigningKey{s, verifier}, nil
}

// verifierOf is the verifier key of a private key in the form of
// golang.org/x/mod/sumdb/note: "PRIVATE+KEY+name+hash+base64", where base64 holds
// the algorithm's number and a seed.
func verifierOf(private string) (string, error) {
	parts := strings.SplitN(private, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("it has not five parts")
	}
	seed, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return "", errors.New("it holds no Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(parts[2], public)
}

// signingKeys are the signing keys of those files that are there, in their order.
func (b *Bundle) signingKeys(files ...string) (keys []*SigningKey, err error) {
	for _, file := range files {
		k, err := ReadSigningKey(b.path(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// publisherKeys are the publisher's keys, the one first that is to be used once a
// policy note lists it.
func (b *Bundle) publisherKeys() ([]*SigningKey, error) {
	keys, err := b.signingKeys(nextPublisherFile, publisherFile)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no publisher's key is in %s", b.dir)
	}
	return keys, err
}

// publisherFor is the key that can sign manifests under n.
func (b *Bundle) publisherFor(n *bundle.PolicyNote) (*SigningKey, error) {
	keys, err := b.publisherKeys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if slices.Contains(n.Publishers, k.Verifier) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the policy note in force lists the publishers %q, and %s has none of their keys", n.Publishers, b.dir)
}

// policySigner is the policy signer's key, or nil if the policy's signers are
// elsewhere: then this home alone cannot sign a policy note.
func (b *Bundle) policySigner() (*SigningKey, error) {
	if b.Threshold > 1 {
		return nil, nil
	}
	keys, err := b.signingKeys(signerFile)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	if !slices.Contains(b.Signers, keys[0].Verifier) {
		return nil, fmt.Errorf("the key in %s is none of the bundle's policy signers", b.path(signerFile))
	}
	return keys[0], nil
}
