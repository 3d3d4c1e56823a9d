// Package tokenkey makes the keys of an issuer of customer tokens, for demos and
// tests.
package tokenkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/keystile/keystile/core/policy"
)

// New makes a key pair that signs customer tokens of an algorithm.
func New(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "RS256":
		return rsa.GenerateKey(rand.Reader, policy.MinRSABits)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("algorithm %q: use RS256, ES256 or EdDSA", algorithm)
}

// JWKS is the JSON Web Key Set of one public key.
func JWKS(algorithm, id string, public crypto.PublicKey) ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: id, Algorithm: algorithm, Use: "sig"}}})
}
