package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keystile/keystile/core/credential"
)

// CustomerToken describes the customer token: the JWT that some routes demand beside
// the API key.
type CustomerToken struct {
	// Source is where the token stands, e.g. Authorization with Bearer.
	Source credential.Source
	// Algorithm is the only one accepted (R61): RS256, ES256 or EdDSA.
	Algorithm string
	// Issuer and Audience are compared exactly.
	Issuer, Audience string
	// Binds are the claims that tie a token to a key.
	Binds []Bind
	// KeySet names the set of public keys; Keys has them once the control
	// plane has added it.
	KeySet string
	Keys   []TokenKey
}

// Bind demands that a claim equals something of the key.
type Bind struct {
	Claim string
	To    Binding
}

// Binding is what of a key a claim is compared with.
type Binding uint8

// The bindings.
const (
	BindTenant Binding = iota + 1
	BindEnvironment
	BindKeyID
)

// Bindings are the names of the bindings.
var Bindings = map[string]Binding{"tenant": BindTenant, "environment": BindEnvironment, "key_id": BindKeyID}

// TokenKey is one public key, as PKIX.
type TokenKey struct {
	ID   string
	PKIX []byte

	public crypto.PublicKey
}

// MinRSABits is the shortest RSA modulus accepted (R66).
const MinRSABits = 2048

func (t *CustomerToken) init() error {
	if t == nil {
		return nil
	}
	if t.Algorithm != "RS256" && t.Algorithm != "ES256" && t.Algorithm != "EdDSA" {
		return fmt.Errorf("algorithm %q: use RS256, ES256 or EdDSA", t.Algorithm)
	}
	if t.Issuer == "" || t.Audience == "" || len(t.Binds) == 0 {
		return errors.New("issuer, audience and at least one bound claim are needed")
	}
	seen := make(map[string]bool)
	for i := range t.Keys {
		k := &t.Keys[i]
		if seen[k.ID] {
			return fmt.Errorf("key %q is given twice", k.ID)
		}
		seen[k.ID] = true
		public, err := x509.ParsePKIXPublicKey(k.PKIX)
		if err != nil {
			return fmt.Errorf("key %q: %w", k.ID, err)
		}
		if err := CheckTokenKey(t.Algorithm, public); err != nil {
			return fmt.Errorf("key %q: %w", k.ID, err)
		}
		k.public = public
	}
	return nil
}

// CheckTokenKey says why public cannot check signatures of the algorithm.
func CheckTokenKey(algorithm string, public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if algorithm == "RS256" && key.N.BitLen() >= MinRSABits && key.E >= 3 && key.E&1 == 1 {
			return nil
		}
		if algorithm == "RS256" {
			return fmt.Errorf("an RSA key needs at least %d bits and an odd exponent of at least 3", MinRSABits)
		}
	case *ecdsa.PublicKey:
		if algorithm == "ES256" && key.Curve == elliptic.P256() {
			return nil
		}
	case ed25519.PublicKey:
		if algorithm == "EdDSA" {
			return nil
		}
	}
	return fmt.Errorf("the key is not one for %s", algorithm)
}

// Public returns the key called id. A token without a key ID, id "", is checked
// only where there is no choice.
func (t *CustomerToken) Public(id string) (crypto.PublicKey, bool) {
	for i := range t.Keys {
		if t.Keys[i].ID == id || id == "" && len(t.Keys) == 1 {
			return t.Keys[i].public, true
		}
	}
	return nil, false
}
