package compile

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"github.com/keystile/keystile/core/policy"
)

func (c *compiler) token() error {
	doc := c.doc.Token
	if doc == nil {
		for name := range c.opts.KeySets {
			return c.doc.Name.Errorf("key set %q is given, and policy %q asks for no customer token", name, c.p.Name)
		}
		return nil
	}
	source, err := sourceDoc{doc.Header, doc.Scheme}.compile()
	if err != nil {
		return err
	}
	for _, s := range c.p.Sources {
		if s.Header == source.Header {
			return doc.Header.Errorf("header %q carries the API key already: one line cannot be both factors", doc.Header.s)
		}
	}
	t := &policy.CustomerToken{
		Source: source, Algorithm: doc.Algorithm.s, Issuer: doc.Issuer.s, Audience: doc.Audience.s, KeySet: doc.Keys.s,
	}
	if t.KeySet == "" {
		return doc.Header.Errorf("customer_token has no keys: give its key set a name, for `bundle build --jwks NAME=FILE`")
	}
	for _, e := range doc.Bind {
		to, ok := policy.Bindings[e.value.s]
		if !ok {
			return e.value.Errorf("claim %q is bound to %q: use tenant, environment or key_id", e.key.s, e.value.s)
		}
		t.Binds = append(t.Binds, policy.Bind{Claim: e.key.s, To: to})
	}
	for name, set := range c.opts.KeySets {
		if name != t.KeySet {
			return doc.Keys.Errorf("key set %q is given, and the policy's is called %q", name, t.KeySet)
		}
		if t.Keys, err = parseJWKS(t.Algorithm, set); err != nil {
			return doc.Keys.Errorf("key set %q: %s", name, err)
		}
	}
	c.p.CustomerToken = t
	return nil
}

// parseJWKS reads the public keys of a JSON Web Key Set (RFC 7517) that check
// signatures of one algorithm. It refuses private and symmetric keys, weak
// ones, and key IDs that are missing among several or given twice (R66).
func parseJWKS(algorithm string, set []byte) ([]policy.TokenKey, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(set, &raw); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	if len(raw.Keys) == 0 {
		return nil, errors.New(`no keys: a key set is {"keys":[…]} with at least one`)
	}
	var out []policy.TokenKey
	for i, b := range raw.Keys {
		key, err := parseJWK(algorithm, b)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		if key.ID == "" && len(raw.Keys) > 1 {
			return nil, fmt.Errorf("key %d has no kid: every key of several needs one", i+1)
		}
		for _, other := range out {
			if other.ID == key.ID {
				return nil, fmt.Errorf("kid %q is given twice", key.ID)
			}
		}
		out = append(out, key)
	}
	return out, nil
}

func parseJWK(algorithm string, b []byte) (policy.TokenKey, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(b, &jwk); err != nil {
		return policy.TokenKey{}, err
	}
	var uses struct {
		KeyOps []string `json:"key_ops"`
	}
	if err := json.Unmarshal(b, &uses); err != nil {
		return policy.TokenKey{}, err
	}
	switch {
	case !jwk.IsPublic():
		return policy.TokenKey{}, errors.New("it is private or symmetric: give the public key only")
	case jwk.Use != "" && jwk.Use != "sig":
		return policy.TokenKey{}, fmt.Errorf("its use is %q, not sig", jwk.Use)
	case jwk.Algorithm != "" && jwk.Algorithm != algorithm:
		return policy.TokenKey{}, fmt.Errorf("it is for %s, and the policy demands %s", jwk.Algorithm, algorithm)
	case uses.KeyOps != nil && (len(uses.KeyOps) != 1 || uses.KeyOps[0] != "verify"):
		return policy.TokenKey{}, errors.New("its key_ops are not verify alone")
	}
	if err := policy.CheckTokenKey(algorithm, jwk.Key); err != nil {
		return policy.TokenKey{}, err
	}
	pkix, err := x509.MarshalPKIXPublicKey(jwk.Key)
	return policy.TokenKey{ID: jwk.KeyID, PKIX: pkix}, err
}
