package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"
)

// R61, R66: an edge takes no key of a bundle for an algorithm that it is not made for,
// nor a weak one, nor one ID twice, whatever compiled the policy.
func TestTokenKeys(t *testing.T) {
	modulus := func(bits uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1) }
	curve := func(c elliptic.Curve) crypto.PublicKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &key.PublicKey
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.PublicKey{
		"RSA": &rsa.PublicKey{N: modulus(2048), E: 65537}, "RSA 3": &rsa.PublicKey{N: modulus(2048), E: 3}, "P-256": curve(elliptic.P256()), "Ed25519": ed,
		"weak RSA": &rsa.PublicKey{N: modulus(2047), E: 65537}, "RSA 1": &rsa.PublicKey{N: modulus(2048), E: 1}, "RSA even": &rsa.PublicKey{N: modulus(2048), E: 4},
		"P-224": curve(elliptic.P224()), "P-384": curve(elliptic.P384()), "P-521": curve(elliptic.P521()), "none": nil,
	}
	fit := map[string]string{"RSA": "RS256", "RSA 3": "RS256", "P-256": "ES256", "Ed25519": "EdDSA"}
	token := func(algorithm string, keys ...TokenKey) *CustomerToken {
		return &CustomerToken{Algorithm: algorithm, Issuer: "i", Audience: "a", Binds: []Bind{{"env", BindEnvironment}}, Keys: keys}
	}
	for _, algorithm := range []string{"RS256", "ES256", "EdDSA", "RS512", "PS256", "ES384", "HS256", "none", ""} {
		for name, key := range keys {
			want := fit[name] == algorithm && algorithm != ""
			if err := CheckTokenKey(algorithm, key); (err == nil) != want {
				t.Errorf("%s for %q: %v", name, algorithm, err)
			}
			if key == nil {
				continue
			}
			pkix, err := x509.MarshalPKIXPublicKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := token(algorithm, TokenKey{ID: "a", PKIX: pkix}).init(); (err == nil) != want {
				t.Errorf("%s in a bundle for %q: %v", name, algorithm, err)
			}
			if err := token(algorithm, TokenKey{ID: "a", PKIX: pkix}, TokenKey{ID: "b", PKIX: pkix}).init(); (err == nil) != want {
				t.Errorf("two %s in a bundle for %q: %v", name, algorithm, err)
			}
			if err := token(algorithm, TokenKey{ID: "a", PKIX: pkix}, TokenKey{ID: "a", PKIX: pkix}).init(); err == nil {
				t.Errorf("%s twice in a bundle for %q: taken", name, algorithm)
			}
		}
		if algorithm != "RS256" && algorithm != "ES256" && algorithm != "EdDSA" && token(algorithm).init() == nil {
			t.Errorf("the algorithm %q: taken", algorithm)
		}
	}
}
