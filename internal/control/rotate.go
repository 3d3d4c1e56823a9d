package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/keystile/keystile/internal/crash"
	"github.com/keystile/keystile/internal/disk"
)

// RotatePublisher makes a new publisher's key. If this home can sign a policy
// note that lists it, it is in use afterwards; else as soon as [Publisher.Adopt]
// gets such a note, and the error wraps [ErrUnsigned]. Edges notice nothing but
// that the old key counts no more.
func (b *Bundle) RotatePublisher(ctx context.Context) error {
	if err := b.Publisher().canPublish(ctx); err != nil {
		return err
	}
	_, err := NewSigningKey(b.path(nextPublisherFile), "keystile-"+b.Name+"-publisher")
	if err != nil && !errors.Is(err, fs.ErrExist) { // one that an earlier try has made is as good
		return err
	}
	crash.Point("next publisher")
	return b.Publisher().Build(ctx)
}

// promote puts the next publisher's key into the place of the one before, once
// the policy note in force lists it.
func (b *Bundle) promote() error {
	next, err := b.signingKeys(nextPublisherFile)
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
	if err := b.Publisher().canPublish(ctx); err != nil {
		return err
	}
	if standby == "" {
		standby = b.path(standbyFile)
	}
	fresh, err := b.makeStandby()
	if err != nil {
		return err
	}
	active, err := b.activate(standby)
	if err != nil {
		return err
	}
	// Published first, and then told to edges: those that begin meanwhile trust
	// whoever signed.
	b.Signers = []string{active.Verifier, fresh.Verifier}
	if err := b.Publisher().Build(ctx); err != nil {
		return err
	}
	crash.Point("signed by the standby")
	if err := b.Settings.write(b.dir); err != nil {
		return err
	}
	b.before = b.Settings
	crash.Point("told")
	return os.Rename(b.path(nextStandbyFile), b.path(standbyFile))
}

// makeStandby makes the key that is to be the standby, or takes the one that an
// earlier try has made.
func (b *Bundle) makeStandby() (*SigningKey, error) {
	path := b.path(nextStandbyFile)
	if _, err := NewSigningKey(path, "keystile-"+b.Name+"-standby"); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	crash.Point("next standby")
	return ReadSigningKey(path)
}

// activate puts the standby's key into the place of the active signer's.
func (b *Bundle) activate(standby string) (*SigningKey, error) {
	key, err := ReadSigningKey(standby)
	if err != nil {
		return nil, fmt.Errorf("the standby signer: %w: name its file with --key", err)
	}
	if !slices.Contains(b.Signers, key.Verifier) {
		return nil, fmt.Errorf("the key in %s is not the bundle's standby", standby)
	}
	private, err := disk.ReadPrivate(standby)
	if err != nil {
		return nil, err
	}
	if err := disk.ReplaceBytes(b.path(signerFile), 0o600, private); err != nil {
		return nil, err
	}
	crash.Point("active signer")
	return key, nil
}
