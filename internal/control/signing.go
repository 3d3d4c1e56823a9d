package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/crash"
	"github.com/keystile/keystile/internal/disk"
)

// ErrUnsigned says that the policy, or who may publish, has changed, and that
// this home cannot sign that itself. Keys are published under the policy in force
// meanwhile.
var ErrUnsigned = errors.New("the policy note has changed and its signers are elsewhere: " +
	"`policy note` writes what they have to sign with `policy sign`, and `bundle build --note` takes it over")

// NewSigningKey makes a key, writes it into a file that must not be there, and
// returns its verifier key.
func NewSigningKey(path, name string) (verifier string, err error) {
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("signing key %q: %w", name, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(private + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(path) // half a key would be in the way of the next try
		return "", fmt.Errorf("signing key: %w", err)
	}
	return public, nil
}

// SigningKey is a key that signs notes.
type SigningKey struct {
	note.Signer
	// Verifier is its public half, in the form of golang.org/x/mod/sumdb/note.
	Verifier string
}

// ReadSigningKey reads a file that [NewSigningKey] wrote. It refuses one that
// anybody but its owner can use.
func ReadSigningKey(path string) (*SigningKey, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	private := strings.TrimSpace(string(raw))
	s, err := note.NewSigner(private)
	if err != nil {
		return nil, fmt.Errorf("signing key %s is malformed", path) // the library's error could quote it
	}
	verifier, err := verifierOf(private)
	if err != nil {
		return nil, fmt.Errorf("signing key %s is malformed", path)
	}
	return &SigningKey{s, verifier}, nil
}

// readPrivate reads a key's file, which only its owner may use.
func readPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if isOpenToOthers(info) {
		return nil, fmt.Errorf("others can read or write %s (mode %04o), and may have done so: replace the key, or if nobody has, `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

func (b *Bundle) path(file string) string { return filepath.Join(b.dir, file) }

// keys are the signing keys of those files that are there, in their order.
func (b *Bundle) keys(files ...string) (keys []*SigningKey, err error) {
	for _, file := range files {
		k, err := ReadSigningKey(b.path(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// publishers are the publisher's keys, the one first that is to be used once a
// policy note lists it.
func (b *Bundle) publishers() ([]*SigningKey, error) {
	keys, err := b.keys(nextPublisherFile, publisherFile)
	if err == nil && len(keys) == 0 {
		err = fmt.Errorf("no publisher's key is in %s", b.dir)
	}
	return keys, err
}

// publisher is the key that can sign manifests under n.
func (b *Bundle) publisher(n *bundle.PolicyNote) (*SigningKey, error) {
	keys, err := b.publishers()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if slices.Contains(n.Publishers, k.Verifier) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the policy note in force lists the publishers %q, and %s has none of their keys", n.Publishers, b.dir)
}

// policySigner is the policy signer's key, or nil if the policy's signers are
// elsewhere: then this home alone cannot sign a policy note.
func (b *Bundle) policySigner() (*SigningKey, error) {
	if b.Threshold > 1 {
		return nil, nil
	}
	keys, err := b.keys(signerFile)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	if !slices.Contains(b.Signers, keys[0].Verifier) {
		return nil, fmt.Errorf("the key in %s is none of the bundle's policy signers", b.path(signerFile))
	}
	return keys[0], nil
}

// publication is the policy note for what is published next: the one in force; a
// new one, if the policy or the publisher has changed and this home can sign it.
func (b *Bundle) publication(last LastSigned) (*bundle.Publication, error) {
	trust, err := b.Trust()
	if err != nil {
		return nil, err
	}
	var inForce *bundle.Publication
	if last.PolicyNote != nil {
		// One that does not hold any more, since its signer was replaced, is as none.
		inForce, _ = bundle.Republish(last.PolicyNote, last.Compiled, trust)
	}
	if inForce != nil && (b.Policy == nil || b.follows(inForce)) {
		return inForce, nil
	}
	signer, err := b.policySigner()
	if err != nil {
		return nil, err
	}
	if signer != nil && b.Policy != nil {
		n, err := b.nextNote(last)
		if err != nil {
			return nil, err
		}
		return bundle.Publish(b.Policy, n.Name, n.Audience, n.Version, n.Publishers, signer)
	}
	if inForce == nil {
		return nil, ErrUnsigned
	}
	return inForce, nil
}

// follows says whether p is for the policy and the publisher as they are now.
func (b *Bundle) follows(p *bundle.Publication) bool {
	keys, err := b.publishers()
	return err == nil && bundle.HashOf(b.Policy.Encode()) == p.Note.PolicyHash && slices.Contains(p.Note.Publishers, keys[0].Verifier)
}

// nextNote is the policy note after last.
func (b *Bundle) nextNote(last LastSigned) (*bundle.PolicyNote, error) {
	publishers, err := b.publishers()
	if err != nil {
		return nil, err
	}
	version, err := bundle.NextVersion(last.PolicyVersion, b.home.now())
	if err != nil {
		return nil, err
	}
	return bundle.NewPolicyNote(b.Policy, b.Name, b.Audience, version, []string{publishers[0].Verifier}), nil
}

// Draft returns the text that the policy signers have to sign so that the policy
// as it is now comes into force.
func (b *Bundle) Draft(ctx context.Context) (text []byte, err error) {
	err = b.view(ctx, func(tx Tx) error {
		last, err := tx.Published()
		if err != nil {
			return err
		}
		n, err := b.nextNote(last)
		if err == nil {
			text = n.Text()
		}
		return err
	})
	return text, err
}

// Adopt puts a policy note in force that signers elsewhere have signed, and
// publishes under it. Several notes are one text with the signatures of several
// signers.
func (b *Bundle) Adopt(ctx context.Context, signed ...[]byte) error {
	merged, err := bundle.MergeNotes(signed...)
	if err != nil {
		return err
	}
	trust, err := b.Trust()
	if err != nil {
		return err
	}
	p, err := bundle.Republish(merged, b.Policy.Encode(), trust)
	if err != nil {
		return fmt.Errorf("policy note: %w", err)
	}
	if !b.follows(p) {
		return fmt.Errorf("the note lists the publishers %q and not the one of this bundle: write it anew with `policy note`", p.Note.Publishers)
	}
	return b.publish(ctx, step{prepare: func(_ Tx, last *LastSigned) error {
		if p.Note.Version <= last.PolicyVersion {
			return fmt.Errorf("the note has version %d, and %d is in force: write it anew with `policy note`", p.Note.Version, last.PolicyVersion)
		}
		*last = publishedUnder(p, last.Version)
		return nil
	}})
}

// RotatePublisher makes a new publisher's key. If this home can sign a policy
// note that lists it, it is in use afterwards; else as soon as [Bundle.Adopt]
// gets such a note, and the error wraps [ErrUnsigned]. Edges notice nothing but
// that the old key counts no more.
func (b *Bundle) RotatePublisher(ctx context.Context) error {
	if err := b.canPublish(ctx); err != nil {
		return err
	}
	_, err := NewSigningKey(b.path(nextPublisherFile), "keystile-"+b.Name+"-publisher")
	if err != nil && !errors.Is(err, fs.ErrExist) { // one that an earlier try has made is as good
		return err
	}
	crash.Point("next publisher")
	return b.Build(ctx)
}

// promote puts the next publisher's key into the place of the one before, once
// the policy note in force lists it.
func (b *Bundle) promote() error {
	next, err := b.keys(nextPublisherFile)
	if err != nil || len(next) == 0 {
		return err
	}
	opened, source, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer source.Close()
	if !slices.Contains(opened.PolicyNote.Publishers, next[0].Verifier) {
		return nil
	}
	crash.Point("promote")
	if err := os.Rename(b.path(nextPublisherFile), b.path(publisherFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RotateSigner makes the standby, whose key is in a file, the active policy
// signer and makes a new standby. Edges that trust both before need no change;
// the new standby has to be made known to them at leisure. A try that was cut
// off is finished by the next.
func (b *Bundle) RotateSigner(ctx context.Context, standby string) error {
	if b.Threshold > 1 || len(b.Signers) != 2 {
		return errors.New("its policy signers were made elsewhere: edit signers in " + b.path(settingsFile) + ", sign a new note, and give edges the new list")
	}
	if err := b.canPublish(ctx); err != nil {
		return err
	}
	if standby == "" {
		standby = b.path(standbyFile)
	}
	next := b.path(nextStandbyFile)
	if _, err := NewSigningKey(next, "keystile-"+b.Name+"-standby"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	crash.Point("next standby")
	fresh, err := ReadSigningKey(next)
	if err != nil {
		return err
	}
	active, err := ReadSigningKey(standby)
	if err != nil {
		return fmt.Errorf("the standby signer: %w: name its file with --key", err)
	}
	if !slices.Contains(b.Signers, active.Verifier) {
		return fmt.Errorf("the key in %s is not the bundle's standby", standby)
	}
	private, err := readPrivate(standby)
	if err != nil {
		return err
	}
	if err := disk.ReplaceBytes(b.path(signerFile), 0o600, private); err != nil {
		return err
	}
	crash.Point("active signer")
	// Published first, and then told to edges: those that begin meanwhile trust
	// whoever signed.
	b.Signers = []string{active.Verifier, fresh.Verifier}
	if err := b.Build(ctx); err != nil {
		return err
	}
	crash.Point("signed by the standby")
	if err := b.Settings.write(b.dir); err != nil {
		return err
	}
	b.before = b.Settings
	crash.Point("told")
	return os.Rename(next, b.path(standbyFile))
}

// verifierOf is the verifier key of a private key in the form of
// golang.org/x/mod/sumdb/note: "PRIVATE+KEY+name+hash+base64", where base64 holds
// the algorithm's number and a seed.
func verifierOf(private string) (string, error) {
	parts := strings.SplitN(private, "+", 5)
	if len(parts) != 5 {
		return "", errors.New("it has not five parts")
	}
	seed, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize {
		return "", errors.New("it holds no Ed25519 key")
	}
	public := ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey)
	return note.NewEd25519VerifierKey(parts[2], public)
}
