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
	"sync"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/disk"
)

// Settings are what an operator chose for one bundle.
type Settings struct {
	Name     string              `json:"name"`
	Audience string              `json:"audience"`
	Hosts    map[string][]string `json:"hosts,omitempty"`
	// Signers are the policy signers' verifier keys. Those that Init made are the
	// active one, then the standby.
	Signers []string `json:"signers"`
	// Threshold is how many of them have to sign; 0 is 1.
	Threshold int `json:"threshold,omitempty"`
	// Directory, if it is not empty, gets the bundle too, node by node, as a
	// static origin serves it.
	Directory string `json:"directory,omitempty"`
	// Life is how long a signed bundle is good; 0 is [bundle.DefaultLife].
	Life Life `json:"life,omitzero"`
}

// Files of a bundle's folder.
const (
	settingsFile  = "settings.json"
	policyFile    = "policy.yaml"
	signerFile    = "policy-signer.key"
	standbyFile   = "standby-signer.key"
	publisherFile = "publisher.key"
	// Keys that are about to take the place of others.
	nextPublisherFile = "next-publisher.key"
	nextStandbyFile   = "next-standby-signer.key"
	trustFile         = "signers.txt"
	keySetFolder      = "jwks"
	storeFile         = "keystile.db"
)

// Home is an opened control plane.
type Home struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	opened Store // nil until somebody asks for it
}

// Bundle is one bundle of a home.
type Bundle struct {
	Settings
	home *Home
	dir  string
	// before are the settings under which the published bundle was signed: the
	// signers may be about to change.
	before Settings
	// Policy is the compiled policy, with hosts and key sets filled in; nil if
	// the bundle was opened by [Home.Published].
	Policy *policy.Policy
}

var bundleName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Open opens the home in dir. It makes nothing: [Home.Init] makes the folder and
// the store of keys, and what works without the store does not open it.
func Open(dir string) (*Home, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is a file, and a home is a folder", dir)
	}
	return &Home{dir: dir, now: time.Now}, nil
}

// Close closes the store.
func (h *Home) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened == nil {
		return nil
	}
	return h.opened.Close()
}

// store opens the store of keys.
func (h *Home) store() (Store, error) {
	s, err := h.openStore(OpenSQLite)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("the key store %s is gone: put a copy of it there, or take over what is published with `caddy keystile keys restore`", h.storeFile())
	}
	return s, err
}

// makeStore is store, which is made if it is not there.
func (h *Home) makeStore() (Store, error) {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return nil, err
	}
	return h.openStore(MakeSQLite)
}

func (h *Home) storeFile() string { return filepath.Join(h.dir, storeFile) }

func (h *Home) openStore(open func(string) (Store, error)) (Store, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened != nil {
		return h.opened, nil
	}
	s, err := open(h.storeFile())
	if err == nil {
		h.opened = s
	}
	return s, err
}

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
// it is published once they have signed: see [Bundle.Draft].
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
	s := Settings{Name: n.Name, Audience: n.Audience, Hosts: n.Hosts, Signers: n.Signers, Threshold: n.Threshold, Directory: n.Directory, Life: n.Life}
	roles := map[string]string{publisherFile: "publisher"}
	if len(n.Signers) == 0 {
		roles[signerFile], roles[standbyFile] = "policy", "standby"
	}
	public := make(map[string]string)
	for file, role := range roles {
		if public[file], err = NewSigningKey(filepath.Join(staging, file), "keystile-"+n.Name+"-"+role); err != nil {
			return nil, err
		}
	}
	if len(n.Signers) == 0 {
		s.Signers = []string{public[signerFile], public[standbyFile]}
	}
	if _, err := s.trust(); err != nil {
		return nil, err
	}
	if err := s.write(staging); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(staging, policyFile), n.Policy, 0o644); err != nil {
		return nil, err
	}
	b, err := h.read(staging)
	if err == nil {
		err = b.compile(nil)
	}
	if err == nil && len(n.Signers) == 0 {
		err = b.Build(ctx)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return nil, err
	}
	b.dir = dir
	return b, os.Rename(staging, dir)
}

// write writes the settings and the list of signers into a bundle's folder.
func (s *Settings) write(dir string) error {
	settings, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := disk.ReplaceBytes(filepath.Join(dir, settingsFile), 0o644, append(settings, '\n')); err != nil {
		return err
	}
	trust := "# Policy signers that edges of this bundle trust.\n" + strings.Join(s.Signers, "\n") + "\n"
	return disk.ReplaceBytes(filepath.Join(dir, trustFile), 0o644, []byte(trust))
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

// Published opens a bundle without its policy: enough for [Bundle.Renew],
// [Bundle.Revoke] and [Bundle.OpenFile], also while the policy's file is being
// worked on.
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
	b, err := h.read(filepath.Join(h.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("bundle %q is not in %s: make it with `caddy keystile init %s`", name, h.dir, name)
	}
	return b, err
}

// read reads a bundle's folder.
func (h *Home) read(dir string) (*Bundle, error) {
	b := &Bundle{home: h, dir: dir}
	raw, err := os.ReadFile(filepath.Join(b.dir, settingsFile))
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b.Settings); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(b.dir, settingsFile), err)
	}
	b.before = b.Settings
	return b, nil
}

// File is where the packed bundle is.
func (b *Bundle) File() string { return filepath.Join(b.dir, b.Name+".keystile") }

// Trust is what an edge of this bundle believes.
func (b *Bundle) Trust() (*bundle.Trust, error) { return b.trust() }

func (s *Settings) trust() (*bundle.Trust, error) {
	return bundle.NewTrust(s.Name, s.Audience, max(s.Threshold, 1), s.Signers...)
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
		if err := disk.ReplaceBytes(filepath.Join(b.dir, keySetFolder, name+".json"), 0o644, set); err != nil {
			return err
		}
	}
	return b.Build(ctx)
}
