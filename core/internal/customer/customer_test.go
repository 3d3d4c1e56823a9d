package customer

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/testing/tokenkey"
)

// R61: the policy's algorithm is the only one, though a token's signature fits the key
// under the algorithm that the token names.
func TestAlgorithm(t *testing.T) {
	now := time.Now()
	for _, algorithm := range []string{"RS256", "ES256", "EdDSA"} {
		key, err := tokenkey.New(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		set, err := tokenkey.JWKS(algorithm, "a", key.Public())
		if err != nil {
			t.Fatal(err)
		}
		p, err := compile.Compile("policy", []byte(`name: x
sources: [{header: X-Key}]
kinds: {secret: {prefix: sk}}
environments: {live: }
customer_token: {header: Authorization, scheme: Bearer, algorithm: `+algorithm+`, issuer: i, audience: x, keys: users, bind: {env: environment}}
routes:
  - {name: user, path: /user, customer_token: true}
`), compile.Options{KeySets: map[string][]byte{"users": set}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := NewVerifier(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		pkix, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix})
		signers := map[string]any{algorithm: key, "none": jwt.UnsafeAllowNoneSignatureType, "HS256": pkix, "HS512": asPEM}
		if algorithm == "RS256" {
			for _, other := range []string{"RS384", "RS512", "PS256", "PS384", "PS512"} {
				signers[other] = crypto.Signer(key)
			}
		}
		for name, signer := range signers {
			token := jwt.NewWithClaims(jwt.GetSigningMethod(name), jwt.MapClaims{"iss": "i", "aud": "x", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "env": "live"})
			token.Header["kid"] = "a"
			raw, err := token.SignedString(signer)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(p.CustomerToken, bundle.Hash{}, raw, now); (err == nil) != (name == algorithm) {
				t.Errorf("a token by %s, and the policy demands %s: %v", name, algorithm, err)
			}
		}
	}
}
