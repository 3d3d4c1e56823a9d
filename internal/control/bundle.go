package control

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/control/publish"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/disk"
)

// Bundle is one bundle of a home: its settings, its files, and who signs it. Its
// [Keyring] has its keys, and its [Publisher] what edges get.
type Bundle struct {
	Settings
	home *Home
	dir  string
	// before are the settings under which the published bundle was signed: the
	// signers may be about to change.
	before Settings
	// Policy is the compiled policy, with hosts and key sets filled in; nil if
	// the bundle was opened by [Home.OpenWithoutPolicy].
	Policy *policy.Policy
}

// Keyring is the bundle's keys.
func (b *Bundle) Keyring() *Keyring { return &Keyring{b} }

// Publisher is what publishes the bundle.
func (b *Bundle) Publisher() *Publisher { return &Publisher{b} }

// File is where the packed bundle is.
func (b *Bundle) File() string { return b.path(b.Name + ".keystile") }

// TrustFile is where the signers' verifier keys are, for an edge's signer_file.
func (b *Bundle) TrustFile() string { return b.path(trustFile) }

func (b *Bundle) path(file string) string { return filepath.Join(b.dir, file) }

// Trust is what an edge of this bundle believes.
func (b *Bundle) Trust() (*bundle.Trust, error) { return b.trust() }

// OpenFile opens the published file as an edge does. The source has to be
// closed.
func (b *Bundle) OpenFile() (*bundle.Bundle, *disk.Source, error) {
	trust, err := b.Trust()
	if err != nil {
		return nil, nil, err
	}
	return disk.OpenBundle(b.File(), trust)
}

// sinks are where the bundle is published: the packed file, by which everything
// else is judged, and then the directory, if there is one.
func (b *Bundle) sinks() publish.Sinks {
	sinks := publish.Sinks{publish.File(b.File())}
	if b.Directory != "" {
		sinks = append(sinks, publish.Directory(b.Directory))
	}
	return sinks
}

// view reads the bundle's part of the store.
func (b *Bundle) view(ctx context.Context, read func(store.Tx) error) error {
	opened, err := b.home.store()
	if err != nil {
		return err
	}
	return opened.View(ctx, b.Name, read)
}

// SetLife keeps the life of what is signed from now on.
func (b *Bundle) SetLife(l Life) error {
	b.Life = l
	return b.Settings.write(b.dir)
}

// lifetime is that of what is built.
func (b *Bundle) lifetime() time.Duration {
	if b.Life == 0 {
		return bundle.DefaultLife
	}
	return time.Duration(b.Life)
}

// SetKeySets takes over key sets of customer tokens, by name, and builds the
// bundle with them.
func (b *Bundle) SetKeySets(ctx context.Context, sets map[string][]byte) error {
	if err := b.compile(sets); err != nil {
		return err
	}
	for name, set := range sets {
		if err := disk.ReplaceBytes(filepath.Join(b.dir, keySetFolder, name+".json"), 0o644, set); err != nil {
			return err
		}
	}
	return b.Publisher().Build(ctx)
}

// compile reads and compiles the policy. Key sets given replace those kept.
func (b *Bundle) compile(keySets map[string][]byte) error {
	document, err := os.ReadFile(b.path(policyFile))
	if err != nil {
		return err
	}
	b.Policy, err = b.Compile(b.path(policyFile), document, keySets)
	return err
}

// Compile compiles a policy as the bundle would have it: with its hosts, and with its
// key sets of customer tokens, which those given replace. It changes nothing.
func (b *Bundle) Compile(file string, document []byte, keySets map[string][]byte) (*policy.Policy, error) {
	kept, err := b.keySets()
	if err != nil {
		return nil, err
	}
	maps.Copy(kept, keySets)
	return compile.Compile(file, document, compile.Options{Hosts: b.Hosts, KeySets: kept})
}

// keySets are the key sets of customer tokens that are kept, by name.
func (b *Bundle) keySets() (map[string][]byte, error) {
	files, err := filepath.Glob(filepath.Join(b.dir, keySetFolder, "*.json"))
	if err != nil {
		return nil, err
	}
	sets := make(map[string][]byte)
	for _, f := range files {
		if sets[strings.TrimSuffix(filepath.Base(f), ".json")], err = os.ReadFile(f); err != nil {
			return nil, err
		}
	}
	return sets, nil
}
