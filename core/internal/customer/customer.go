// Package customer verifies customer tokens: the JWTs (RFC 7519) that some routes
// demand beside the API key.
//
// A [Verifier] checks a token against a policy's [policy.CustomerToken] and remembers
// good ones until they expire. What ties a token to a key is compared by
// [Claims.Bound] at every use, never cached.
package customer

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/internal/cache"
	"github.com/keystile/keystile/core/policy"
)

// maxSize is the longest token looked at, in bytes (R33).
const maxSize = 8 << 10

// errInvalid is the answer to any token that is not good. It says no more: what
// is wrong is the sender's business, and the token must not get into a log.
var errInvalid = errors.New("customer token is invalid")

// Claims is what a verified token says.
type Claims struct {
	Subject string
	Expires time.Time
	bound   []string // values of the policy's bound claims, in order
	digest  [sha256.Size]byte
}

// Bound says whether the token is for the key: each bound claim equals what the
// policy ties it to.
func (c *Claims) Bound(t *policy.CustomerToken, tenant, environment, keyID string) bool {
	for i, b := range t.Binds {
		want := map[policy.Binding]string{
			policy.BindTenant: tenant, policy.BindEnvironment: environment, policy.BindKeyID: keyID,
		}[b.To]
		if want == "" || c.bound[i] != want {
			return false
		}
	}
	return true
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	good *cache.Cache[*Claims]
}

// claimsCost is about what one cached token takes, in bytes.
const claimsCost = 256 + cache.Entry

// NewVerifier returns a Verifier that remembers good tokens in at most limit
// bytes.
func NewVerifier(limit int64) (*Verifier, error) {
	good, err := cache.New[*Claims](limit, claimsCost, 64)
	if err != nil {
		return nil, err
	}
	return &Verifier{good}, nil
}

// Used is how many bytes of their limit the remembered tokens take.
func (v *Verifier) Used() (used, limit int64) { return v.good.Used(), v.good.Limit() }

// Verify checks raw with the policy's keys and returns its claims, whether or
// not they have expired: the caller compares [Claims.Expires] last, since only a
// token that is good in all else counts as expired. policyHash sets apart what
// was verified under another policy.
func (v *Verifier) Verify(t *policy.CustomerToken, policyHash bundle.Hash, raw string, now time.Time) (*Claims, error) {
	if len(raw) > maxSize || !compact(raw) {
		return nil, errInvalid
	}
	h := sha256.New()
	h.Write(policyHash[:])
	h.Write([]byte(raw))
	var digest [sha256.Size]byte
	h.Sum(digest[:0])
	if c, ok := v.good.Get(digest[:]); ok && c.digest == digest {
		return c, nil
	}
	c, err := verify(t, raw, now)
	if err != nil {
		return nil, err
	}
	c.digest = digest
	v.good.SetFor(digest[:], c, claimsCost, max(c.Expires.Sub(now), time.Second))
	return c, nil
}

// compact says whether s has three parts of the base64url alphabet without
// padding, so that one token has one spelling (R64): the decoder behind also
// takes line ends.
func compact(s string) bool {
	dots, part := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if part == 0 {
				return false
			}
			dots, part = dots+1, 0
		case ascii.IsAlnum(c), c == '-', c == '_':
			part++
		default:
			return false
		}
	}
	return dots == 2 && part > 0
}

// refused are header parameters that change what a signature means or where its
// key comes from (R62).
var refused = []string{"crit", "b64", "jwk", "jku", "x5u", "x5c", "zip", "enc", "cty"}

func verify(t *policy.CustomerToken, raw string, now time.Time) (*Claims, error) {
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{t.Algorithm}), // never the token's choice (R61)
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(), // below: the library would not tell only-expired apart
	)
	parsed, err := parser.Parse(raw, func(parsed *jwt.Token) (any, error) {
		for _, name := range refused {
			if _, ok := parsed.Header[name]; ok {
				return nil, errInvalid
			}
		}
		id, _ := parsed.Header["kid"].(string)
		if _, given := parsed.Header["kid"]; given && id == "" {
			return nil, errInvalid
		}
		key, ok := t.Public(id)
		if !ok {
			return nil, errInvalid
		}
		return key, nil
	})
	if err != nil || !parsed.Valid {
		return nil, errInvalid
	}
	claims, ok := parsed.Claims.(jwt.MapClaims)
	if !ok {
		return nil, errInvalid
	}
	return check(t, claims, now)
}

// check demands every claim that the policy names, with its type (R63).
func check(t *policy.CustomerToken, claims jwt.MapClaims, now time.Time) (*Claims, error) {
	issuer, err := claims.GetIssuer()
	if err != nil || issuer != t.Issuer {
		return nil, errInvalid
	}
	audience, err := claims.GetAudience()
	if err != nil || !slices.Contains(audience, t.Audience) {
		return nil, errInvalid
	}
	expires, err := claims.GetExpirationTime()
	if err != nil || expires == nil {
		return nil, errInvalid
	}
	notBefore, err := claims.GetNotBefore()
	if err != nil || notBefore != nil && now.Before(notBefore.Time) {
		return nil, errInvalid
	}
	if _, err := claims.GetIssuedAt(); err != nil {
		return nil, errInvalid
	}
	subject, err := claims.GetSubject()
	if err != nil || subject == "" || policy.CheckIdentityValue(subject) != nil {
		return nil, errInvalid // it goes upstream in a header (R38)
	}
	c := &Claims{Subject: strings.Clone(subject), Expires: expires.Time}
	for _, b := range t.Binds {
		value, ok := claims[b.Claim].(string)
		if !ok || value == "" {
			return nil, errInvalid
		}
		c.bound = append(c.bound, value)
	}
	return c, nil
}
