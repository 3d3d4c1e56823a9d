package table

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/duration"
	"github.com/keystile/keystile/internal/testing/tokenkey"
)

// Audience is the audience of the bundles that [Table.Issue] makes.
const Audience = "conformance"

// Fixture is what one run of a table needs: fresh keys, fresh signers and the
// bundle.
type Fixture struct {
	// Pack is the bundle as a packed file, and Signer the verifier key of its
	// policy signer: all that a host gets.
	Pack   []byte
	Signer string
	// Policy is the compiled policy.
	Policy *policy.Policy

	now    time.Time
	keys   map[string]issued
	tokens map[string]string
}

type issued struct {
	secret credential.Secret
	id     string
}

// Secrets are all keys and tokens of the run, to look for them where they must
// not be.
func (f *Fixture) Secrets() []string {
	var out []string
	for _, k := range f.keys {
		out = append(out, k.secret.Reveal())
	}
	return slices.AppendSeq(out, maps.Values(f.tokens))
}

// Secret is the API key that the table calls name.
func (f *Fixture) Secret(name string) string { return f.keys[name].secret.Reveal() }

// Issue makes the table's keys and tokens anew and a bundle for them, signed by
// signers of this run alone.
func (t *Table) Issue(file string, document []byte) (*Fixture, error) {
	p, err := compile.Compile(file, document, compile.Options{})
	if err != nil {
		return nil, err
	}
	f := &Fixture{keys: make(map[string]issued), tokens: make(map[string]string)}
	var signer tokenSigner
	if p.CustomerToken != nil {
		if signer, err = newTokenSigner(p.CustomerToken.Algorithm); err != nil {
			return nil, err
		}
		jwks, err := tokenkey.JWKS(p.CustomerToken.Algorithm, tokenKeyID, signer.own.Public())
		if err != nil {
			return nil, err
		}
		opts := compile.Options{KeySets: map[string][]byte{p.CustomerToken.KeySet: jwks}}
		if p, err = compile.Compile(file, document, opts); err != nil {
			return nil, err
		}
	}
	f.Policy = p
	now := time.Now()
	f.now = now
	var records []bundle.Record
	for _, name := range slices.Sorted(maps.Keys(t.Keys)) {
		rec, secret, err := t.Keys[name].issue(p, now)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		f.keys[name] = issued{secret, rec.KeyID}
		if !t.Keys[name].Absent {
			records = append(records, rec)
		}
	}
	for name, spec := range t.Tokens {
		if _, twice := f.keys[name]; twice {
			return nil, fmt.Errorf("%q names a key and a token", name)
		}
		if p.CustomerToken == nil {
			return nil, fmt.Errorf("token %q: the policy asks for no customer token", name)
		}
		if f.tokens[name], err = spec.sign(signer, now); err != nil {
			return nil, fmt.Errorf("token %q: %w", name, err)
		}
	}
	return f, f.sign(records, now)
}

func (f *Fixture) sign(records []bundle.Record, now time.Time) error {
	version := now.UnixMilli()
	publisher, err := bundletest.NewPublisher(f.Policy, f.Policy.Name, Audience, version)
	if err != nil {
		return err
	}
	f.Signer = publisher.Policy.Key
	f.Pack, err = publisher.Pack(version, records)
	return err
}

// Sign signs a bundle of records under p, with signers made for it.
func Sign(p *policy.Policy, records []bundle.Record) (*Fixture, error) {
	f := &Fixture{Policy: p}
	return f, f.sign(records, time.Now())
}

// Bundle signs a bundle of records under p and opens it.
func Bundle(p *policy.Policy, records []bundle.Record) (*bundle.Bundle, error) {
	f, err := Sign(p, records)
	if err != nil {
		return nil, err
	}
	return f.Open()
}

// Open opens the fixture's bundle as an edge does.
func (f *Fixture) Open() (*bundle.Bundle, error) {
	pack, err := bundle.OpenPack(bytes.NewReader(f.Pack), int64(len(f.Pack)))
	if err != nil {
		return nil, err
	}
	trust, err := bundle.NewTrust("", Audience, 1, f.Signer)
	if err != nil {
		return nil, err
	}
	return bundle.Open(pack.Notes, pack.Compiled, pack, trust)
}

func (s KeySpec) issue(p *policy.Policy, now time.Time) (rec bundle.Record, secret credential.Secret, err error) {
	i := p.KindIndex(s.Kind)
	if i < 0 {
		return rec, secret, fmt.Errorf("kind %q is not in policy %q", s.Kind, p.Name)
	}
	if !slices.Contains(p.Environments, s.Environment) {
		return rec, secret, fmt.Errorf("environment %q is not in policy %q", s.Environment, p.Name)
	}
	if secret, err = credential.Generate(p.Kinds[i].Prefix, s.Environment); err != nil {
		return rec, secret, err
	}
	rec = bundle.Record{
		Digest: secret.Digest(), KeyID: p.Kinds[i].IDPrefix + "_" + credential.RandomText(16),
		Kind: s.Kind, Environment: s.Environment, Tenant: s.Tenant, Status: bundle.Active,
		Scopes: slices.Sorted(slices.Values(s.Scopes)),
	}
	if s.Status != "" {
		if rec.Status, err = bundle.ParseStatus(s.Status); err != nil {
			return rec, secret, err
		}
	}
	if rec.NotBefore, err = relative(s.NotBefore, now); err != nil {
		return rec, secret, err
	}
	if rec.Expires, err = relative(s.Expires, now); err != nil {
		return rec, secret, err
	}
	if err := rec.Restrict(s.IPs, s.Referrers, s.Endpoints); err != nil {
		return rec, secret, err
	}
	return rec, secret, rec.Check()
}

// relative is [moment] in seconds, or 0 for no time.
func relative(s string, now time.Time) (int64, error) {
	at, err := moment(s, now)
	if err != nil || at.IsZero() {
		return 0, err
	}
	return at.Unix(), nil
}

// moment reads a time that is so long from now, or from the midnight (UTC) with which
// the day of now began.
func moment(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	after, ok := strings.CutPrefix(s, "midnight")
	if ok {
		now = now.UTC().Truncate(24 * time.Hour)
		if after == "" {
			return now, nil
		}
		if after = strings.TrimPrefix(after, " "); after == "" || after[0] != '+' && after[0] != '-' {
			return now, fmt.Errorf("%q is no time: write midnight, or midnight +1d", s)
		}
	}
	d, err := duration.Parse(after)
	return now.Add(d), err
}

// tokenSigner signs the customer tokens of one run.
type tokenSigner struct {
	method       jwt.SigningMethod
	own, foreign crypto.Signer
}

const tokenKeyID = "conformance"

func newTokenSigner(algorithm string) (s tokenSigner, err error) {
	s.method = jwt.GetSigningMethod(algorithm)
	if s.own, err = tokenkey.New(algorithm); err != nil {
		return s, err
	}
	s.foreign, err = tokenkey.New(algorithm)
	return s, err
}

func (spec TokenSpec) sign(s tokenSigner, now time.Time) (string, error) {
	claims := jwt.MapClaims{}
	for k, v := range spec.Claims {
		if text, ok := v.(string); ok && (k == "exp" || k == "nbf" || k == "iat") {
			at, err := relative(text, now)
			if err != nil {
				return "", err
			}
			v = at
		}
		claims[k] = v
	}
	if spec.Damage == "large" {
		claims["filler"] = strings.Repeat("x", 8<<10)
	}
	method, key := s.method, any(s.own)
	switch spec.Signer {
	case "":
	case "stranger":
		key = s.foreign
	case "none":
		method, key = jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType
	case "public":
		pkix, err := x509.MarshalPKIXPublicKey(s.own.Public())
		if err != nil {
			return "", err
		}
		method, key = jwt.SigningMethodHS256, pkix
	default:
		return "", fmt.Errorf("signer %q: use stranger, public or none", spec.Signer)
	}
	token := jwt.NewWithClaims(method, claims)
	token.Header["kid"] = tokenKeyID
	for k, v := range spec.Header {
		if token.Header[k] = v; v == nil {
			delete(token.Header, k)
		}
	}
	raw, err := token.SignedString(key)
	if err != nil {
		return "", err
	}
	return spec.damage(raw)
}

func (spec TokenSpec) damage(raw string) (string, error) {
	last := raw[len(raw)-1]
	switch spec.Damage {
	case "", "large":
		return raw, nil
	case "signature": // a character in the middle, where all bits count
		i := len(raw) - 20
		c := byte('A')
		if raw[i] == c {
			c = 'B'
		}
		return raw[:i] + string(c) + raw[i+1:], nil
	case "padding":
		return raw + "==", nil
	case "newline":
		return raw[:len(raw)-4] + "\n" + raw[len(raw)-4:], nil
	case "bits": // the last of 342 characters has four unused bits
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return raw[:len(raw)-1] + string(alphabet[strings.IndexByte(alphabet, last)|1]), nil
	case "cut":
		return raw[:strings.LastIndexByte(raw, '.')+1], nil
	}
	return "", fmt.Errorf("damage %q: use signature, padding, newline, bits, cut or large", spec.Damage)
}
