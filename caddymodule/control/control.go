// Package control is Keystile's control plane: it keeps keys, issues, rolls and
// revokes them, and publishes signed bundles of them.
//
// A [Home] is a folder with the store of all keys and one folder for each
// bundle, with its policy, its signing keys and what was published last. Make
// one with [Init] and open it with [Open]; every change of keys builds and
// signs the bundle in the same transaction.
package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
)

// Settings are what an operator chose for one bundle.
type Settings struct {
	Name     string              `json:"name"`
	Audience string              `json:"audience"`
	Hosts    map[string][]string `json:"hosts,omitempty"`
	// Signers are the policy signers' verifier keys: the active one, then the
	// standby.
	Signers   []string `json:"signers"`
	Publisher string   `json:"publisher"`
}

// Files of a bundle's folder.
const (
	settingsFile  = "settings.json"
	policyFile    = "policy.yaml"
	signerFile    = "policy-signer.key"
	standbyFile   = "standby-signer.key"
	publisherFile = "publisher.key"
	trustFile     = "signers.txt"
	keySetFolder  = "jwks"
	storeFile     = "keystile.db"
)

// Home is an opened control plane.
type Home struct {
	dir   string
	store Store
	now   func() time.Time
}

// Bundle is one bundle of a home.
type Bundle struct {
	Settings
	home *Home
	dir  string
	// Policy is the compiled policy, with hosts and key sets filled in; nil if
	// the bundle was opened by [Home.Published].
	Policy *policy.Policy
}

var bundleName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Open opens the home in dir; the store is made if it is not there.
func Open(dir string) (*Home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := OpenSQLite(filepath.Join(dir, storeFile))
	if err != nil {
		return nil, err
	}
	return &Home{dir: dir, store: store, now: time.Now}, nil
}

// Close closes the store.
func (h *Home) Close() error { return h.store.Close() }

// NewBundle is what [Home.Init] makes a bundle from.
type NewBundle struct {
	Name     string
	Audience string
	Policy   []byte // the document
	File     string // its name, for errors
	Hosts    map[string][]string
}

// Init makes a bundle: its folder, an active and a standby policy signer and a
// publisher, and publishes it without keys.
func (h *Home) Init(ctx context.Context, n NewBundle) (*Bundle, error) {
	if !bundleName.MatchString(n.Name) {
		return nil, fmt.Errorf("bundle name %q: use lower-case letters, digits, dash and underscore", n.Name)
	}
	dir := filepath.Join(h.dir, n.Name)
	if _, err := os.Stat(dir); err == nil {
		return nil, fmt.Errorf("bundle %q is there already, in %s", n.Name, dir)
	}
	if _, err := compile.Compile(n.File, n.Policy, compile.Options{Hosts: n.Hosts}); err != nil {
		return nil, err
	}
	// Everything is made beside its place and moved there at once, so that a
	// failure leaves no half of a bundle.
	staging, err := os.MkdirTemp(h.dir, ".init-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(staging)
	s := Settings{Name: n.Name, Audience: n.Audience, Hosts: n.Hosts}
	for _, k := range []struct{ file, role string }{
		{signerFile, "policy"}, {standbyFile, "standby"}, {publisherFile, "publisher"},
	} {
		private, public, err := note.GenerateKey(rand.Reader, "keystile-"+n.Name+"-"+k.role)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(staging, k.file), []byte(private+"\n"), 0o600); err != nil {
			return nil, err
		}
		if k.file == publisherFile {
			s.Publisher = public
		} else {
			s.Signers = append(s.Signers, public)
		}
	}
	settings, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return nil, err
	}
	trust := "# Policy signers that edges of this bundle trust: the active one and the standby.\n" + strings.Join(s.Signers, "\n") + "\n"
	for name, b := range map[string][]byte{settingsFile: append(settings, '\n'), policyFile: n.Policy, trustFile: []byte(trust)} {
		if err := os.WriteFile(filepath.Join(staging, name), b, 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return nil, err
	}
	if err := os.Rename(staging, dir); err != nil {
		return nil, err
	}
	b, err := h.Bundle(n.Name)
	if err != nil {
		return nil, err
	}
	return b, b.Build(ctx)
}

// Bundles are the names of the home's bundles, in byte order.
func (h *Home) Bundles() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(h.dir, "*", settingsFile))
	var names []string
	for _, f := range found {
		if name := filepath.Base(filepath.Dir(f)); bundleName.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// Bundle opens a bundle. With an empty name it is the only one there is.
func (h *Home) Bundle(name string) (*Bundle, error) {
	b, err := h.Published(name)
	if err != nil {
		return nil, err
	}
	return b, b.compile(nil)
}

// Published opens a bundle without its policy: enough for [Bundle.Renew] and
// [Bundle.OpenFile], also while the policy's file is being worked on.
func (h *Home) Published(name string) (*Bundle, error) {
	if name == "" {
		names, err := h.Bundles()
		if err != nil {
			return nil, err
		}
		switch len(names) {
		case 0:
			return nil, fmt.Errorf("no bundle is in %s: make one with `caddy keystile init`", h.dir)
		case 1:
			name = names[0]
		default:
			return nil, fmt.Errorf("name one of the bundles %q with --bundle", names)
		}
	}
	b := &Bundle{home: h, dir: filepath.Join(h.dir, name)}
	raw, err := os.ReadFile(filepath.Join(b.dir, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bundle %q is not in %s: make it with `caddy keystile init %s`", name, h.dir, name)
	}
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b.Settings); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(b.dir, settingsFile), err)
	}
	return b, nil
}

// File is where the packed bundle is.
func (b *Bundle) File() string { return filepath.Join(b.dir, b.Name+".keystile") }

// Trust is what an edge of this bundle believes.
func (b *Bundle) Trust() (*bundle.Trust, error) {
	return bundle.NewTrust(b.Name, b.Audience, 1, b.Signers...)
}

// TrustFile is where the signers' verifier keys are, for an edge's signer_file.
func (b *Bundle) TrustFile() string { return filepath.Join(b.dir, trustFile) }

// compile reads and compiles the policy. Key sets given replace those kept.
func (b *Bundle) compile(keySets map[string][]byte) error {
	path := filepath.Join(b.dir, policyFile)
	document, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	opts := compile.Options{Hosts: b.Hosts, KeySets: make(map[string][]byte)}
	kept, err := filepath.Glob(filepath.Join(b.dir, keySetFolder, "*.json"))
	if err != nil {
		return err
	}
	for _, f := range kept {
		if opts.KeySets[strings.TrimSuffix(filepath.Base(f), ".json")], err = os.ReadFile(f); err != nil {
			return err
		}
	}
	maps.Copy(opts.KeySets, keySets)
	b.Policy, err = compile.Compile(path, document, opts)
	return err
}

// SetKeySets takes over key sets of customer tokens, by name, and builds the
// bundle with them.
func (b *Bundle) SetKeySets(ctx context.Context, sets map[string][]byte) error {
	if err := b.compile(sets); err != nil {
		return err
	}
	for name, set := range sets {
		if err := writeFile(filepath.Join(b.dir, keySetFolder, name+".json"), set); err != nil {
			return err
		}
	}
	return b.Build(ctx)
}

func (b *Bundle) signer(file string) (note.Signer, error) {
	path := filepath.Join(b.dir, file)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	s, err := note.NewSigner(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("signing key %s is malformed", path) // the library's error could quote it
	}
	return s, nil
}

// writeFile replaces a file so that a reader, or a crash, meets the old or the
// new one and nothing between.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".write-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
