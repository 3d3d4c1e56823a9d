package control

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

	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/tokenkey"
)

const (
	demoKeyFile = "demo-customers.key"
	demoKeyID   = "keystile-demo"
)

// DemoToken makes a customer token, for demos and tests. It is signed by a key
// of its own, whose public part is given to the bundle unless that has a key set
// already.
func (b *Bundle) DemoToken(ctx context.Context, subject string, claims map[string]string, life time.Duration) (string, error) {
	t := b.Policy.CustomerToken
	if t == nil {
		return "", fmt.Errorf("policy %q asks for no customer token", b.Policy.Name)
	}
	key, err := b.demoKey(t.Algorithm)
	if err != nil {
		return "", err
	}
	if len(t.Keys) == 0 {
		set, err := tokenkey.JWKS(t.Algorithm, demoKeyID, key.Public())
		if err != nil {
			return "", err
		}
		if err := b.SetKeySets(ctx, map[string][]byte{t.KeySet: set}); err != nil {
			return "", err
		}
	} else if known, ok := t.Public(demoKeyID); !ok || !equalKeys(known, key.Public()) {
		return "", fmt.Errorf("bundle %q has a key set that is not the demo's: its tokens come from its issuer", b.Name)
	}
	now := b.home.now()
	all := jwt.MapClaims{"iss": t.Issuer, "aud": t.Audience, "sub": subject, "exp": now.Add(life).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	for _, bind := range t.Binds {
		if all[bind.Claim] == nil {
			return "", fmt.Errorf("the policy binds the claim %s: give --claim %s=VALUE", bind.Claim, bind.Claim)
		}
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(t.Algorithm), all)
	token.Header["kid"] = demoKeyID
	return token.SignedString(key)
}

func equalKeys(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// demoKey reads the demo's key, or makes it.
func (b *Bundle) demoKey(algorithm string) (crypto.Signer, error) {
	path := filepath.Join(b.dir, demoKeyFile)
	raw, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeDemoKey(path, algorithm)
	}
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

func makeDemoKey(path, algorithm string) (crypto.Signer, error) {
	key, err := tokenkey.New(algorithm)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, disk.ReplaceBytes(path, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
