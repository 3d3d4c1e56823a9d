package control

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keystile/keystile/core/policy/compile"
)

// NewBundle is what [Home.Init] makes a bundle from.
type NewBundle struct {
	Name     string
	Audience string
	Policy   []byte // the document
	File     string // its name, for errors
	Hosts    map[string][]string
	// Signers are policy signers whose keys are elsewhere, of whom Threshold have
	// to sign (0 is 1). Without any, an active and a standby one are made.
	Signers   []string
	Threshold int
	Directory string // see [Settings]
	Life      Life   // see [Settings]
}

// Init makes a bundle: its folder, an active and a standby policy signer and a
// publisher, and publishes it without keys. If its policy signers are elsewhere
// it is published once they have signed: see [Publisher.Draft].
func (h *Home) Init(ctx context.Context, n NewBundle) (*Bundle, error) {
	dir := filepath.Join(h.dir, n.Name)
	if err := n.check(dir); err != nil {
		return nil, err
	}
	if _, err := h.makeStore(); err != nil {
		return nil, err
	}
	// Everything is made beside its place and moved there at once, so that a
	// failure leaves no half of a bundle.
	staging, err := os.MkdirTemp(h.dir, ".init-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(staging)
	b, err := h.initIn(ctx, staging, n)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return nil, err
	}
	b.dir = dir
	return b, os.Rename(staging, dir)
}

// check says why n cannot be made in dir.
func (n *NewBundle) check(dir string) error {
	if !bundleName.MatchString(n.Name) {
		return errBundleName(n.Name)
	}
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("bundle %q is there already, in %s", n.Name, dir)
	}
	_, err := compile.Compile(n.File, n.Policy, compile.Options{Hosts: n.Hosts})
	return err
}

// initIn makes the bundle in dir, and publishes it if that is up to this home.
func (h *Home) initIn(ctx context.Context, dir string, n NewBundle) (*Bundle, error) {
	if err := n.write(dir); err != nil {
		return nil, err
	}
	b, err := h.read(dir)
	if err == nil {
		err = b.compile(nil)
	}
	if err == nil && len(n.Signers) == 0 {
		err = b.Publisher().Build(ctx)
	}
	return b, err
}

// write writes the bundle's files into dir, but for what is published.
func (n *NewBundle) write(dir string) error {
	made, err := n.makeKeys(dir)
	if err != nil {
		return err
	}
	s := Settings{
		Name: n.Name, Audience: n.Audience, Hosts: n.Hosts, Signers: n.Signers, Threshold: n.Threshold,
		Directory: n.Directory, Life: n.Life,
	}
	if len(n.Signers) == 0 {
		s.Signers = made
	}
	if _, err := s.trust(); err != nil {
		return err
	}
	if err := s.write(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, policyFile), n.Policy, 0o644)
}

// makeKeys makes the publisher's key, and those of an active and a standby signer
// unless the signers are elsewhere. It returns the verifier keys of the two.
func (n *NewBundle) makeKeys(dir string) (signers []string, err error) {
	newKey := func(file, role string) (string, error) {
		return NewSigningKey(filepath.Join(dir, file), "keystile-"+n.Name+"-"+role)
	}
	if _, err := newKey(publisherFile, "publisher"); err != nil || len(n.Signers) > 0 {
		return nil, err
	}
	active, err := newKey(signerFile, "policy")
	if err != nil {
		return nil, err
	}
	standby, err := newKey(standbyFile, "standby")
	return []string{active, standby}, err
}
