// Package bundletest makes what tests sign bundles with, and of: signers,
// publishers and records.
package bundletest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Signer signs notes.
type Signer struct {
	note.Signer
	Key string // its verifier key
}

// NewSigner makes a signer called name. It panics if none can have this name.
func NewSigner(name string) Signer {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		panic(err)
	}
	s, err := note.NewSigner(private)
	if err != nil {
		panic(err)
	}
	return Signer{s, public}
}

// Publisher publishes bundles under a policy note that it has signed.
type Publisher struct {
	Publication      *bundle.Publication
	Policy, Manifest Signer // who signs the policy note, and the manifests
}

// NewPublisher signs a policy note of this version for p. All signers are new.
func NewPublisher(p *policy.Policy, name, audience string, version int64) (*Publisher, error) {
	out := &Publisher{Policy: NewSigner("policy"), Manifest: NewSigner("publisher")}
	return out, out.Publish(p, name, audience, version)
}

// Publish signs another policy note, which lists the signer of manifests alone.
func (p *Publisher) Publish(document *policy.Policy, name, audience string, version int64) (err error) {
	p.Publication, err = bundle.Publish(document, name, audience, version, []string{p.Manifest.Key}, p.Policy)
	return err
}

// Trust is what an edge needs to accept what p publishes.
func (p *Publisher) Trust() (*bundle.Trust, error) {
	return bundle.NewTrust(p.Publication.Note.Name, p.Publication.Note.Audience, 1, p.Policy.Key)
}

// Sign signs a bundle of records, as this version.
func (p *Publisher) Sign(version int64, records []bundle.Record) (*bundle.Signed, error) {
	return p.Publication.Sign(records, version, bundle.DefaultLife, p.Manifest)
}

// Pack is a bundle of records as a packed file.
func (p *Publisher) Pack(version int64, records []bundle.Record) ([]byte, error) {
	signed, err := p.Sign(version, records)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = signed.Pack(&out)
	return out.Bytes(), err
}

// Open signs a bundle of records and opens it as an edge does.
func (p *Publisher) Open(version int64, records []bundle.Record) (*bundle.Bundle, error) {
	signed, err := p.Sign(version, records)
	if err != nil {
		return nil, err
	}
	trust, err := p.Trust()
	if err != nil {
		return nil, err
	}
	return signed.Open(trust)
}

// Records makes n records of the default policy's secret keys. They are the same each
// time.
func Records(n int) []bundle.Record {
	records := make([]bundle.Record, n)
	for i := range records {
		records[i] = bundle.Record{
			Digest: sha256.Sum256(fmt.Appendf(nil, "key %d", i)), KeyID: fmt.Sprintf("key_%d", i),
			Kind: "secret", Environment: "live", Status: bundle.Active,
		}
	}
	return records
}
