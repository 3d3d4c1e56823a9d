// Package token makes customer tokens for demos and tests, with a key of the
// demo's own in a bundle's folder. It stands in for the service that an API's
// customers log in to.
package token

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/tokenkey"
)

const (
	keyFile = "demo-customers.key"
	keyID   = "keystile-demo"
)

// Trust gives a bundle the demo's public key, which is made on first use, as its
// key set of customers. It is for bundles of demos: whoever has the key's file is
// any customer. A bundle that has another key set keeps that, and Trust fails.
func Trust(ctx context.Context, b *control.Bundle) error {
	t, err := wanted(b)
	if err != nil {
		return err
	}
	key, err := readKey(b)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(b, t.Algorithm)
	}
	if err != nil {
		return err
	}
	if len(t.Keys) > 0 {
		return check(b, t, key)
	}
	set, err := tokenkey.JWKS(t.Algorithm, keyID, key.Public())
	if err != nil {
		return err
	}
	return b.SetKeySets(ctx, map[string][]byte{t.KeySet: set})
}

// Make makes a customer token as the bundle's policy wants it. It is signed by the
// demo's key, which the bundle has to know already: see [Trust].
func Make(b *control.Bundle, subject string, claims map[string]string, life time.Duration) (string, error) {
	t, err := wanted(b)
	if err != nil {
		return "", err
	}
	if len(t.Keys) == 0 {
		return "", fmt.Errorf("bundle %q has no key set, and only the demo's bundles get one for this: take over that of the issuer with `caddy keystile bundle build --jwks %s=FILE`, and ask the issuer for tokens", b.Name, t.KeySet)
	}
	key, err := readKey(b)
	if errors.Is(err, fs.ErrNotExist) {
		return "", notTheDemos(b)
	}
	if err != nil {
		return "", err
	}
	if err := check(b, t, key); err != nil {
		return "", err
	}
	all := jwt.MapClaims{"iss": t.Issuer, "aud": t.Audience, "sub": subject, "exp": time.Now().Add(life).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	for _, bind := range t.Binds {
		if all[bind.Claim] == nil {
			return "", fmt.Errorf("the policy binds the claim %s: give --claim %s=VALUE", bind.Claim, bind.Claim)
		}
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(t.Algorithm), all)
	token.Header["kid"] = keyID
	return token.SignedString(key)
}

// wanted is what the bundle's policy asks of customer tokens.
func wanted(b *control.Bundle) (*policy.CustomerToken, error) {
	if b.Policy.CustomerToken == nil {
		return nil, fmt.Errorf("policy %q asks for no customer token", b.Policy.Name)
	}
	return b.Policy.CustomerToken, nil
}

// check says so if the bundle has a key set without the demo's key.
func check(b *control.Bundle, t *policy.CustomerToken, key crypto.Signer) error {
	known, ok := t.Public(keyID)
	own, comparable := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !comparable || !own.Equal(known) {
		return notTheDemos(b)
	}
	return nil
}

func notTheDemos(b *control.Bundle) error {
	return fmt.Errorf("bundle %q has a key set that is not the demo's: its tokens come from its issuer", b.Name)
}

func keyPath(b *control.Bundle) string { return filepath.Join(filepath.Dir(b.File()), keyFile) }

// readKey reads the demo's key. The error wraps [fs.ErrNotExist] if there is none.
func readKey(b *control.Bundle) (crypto.Signer, error) {
	path := keyPath(b)
	raw, err := disk.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is malformed", path)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s holds no signing key", path)
	}
	return signer, nil
}

func makeKey(b *control.Bundle, algorithm string) (crypto.Signer, error) {
	key, err := tokenkey.New(algorithm)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, disk.ReplaceBytes(keyPath(b), 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
