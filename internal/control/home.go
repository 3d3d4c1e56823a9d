// Package control is Keystile's control plane: it keeps keys, issues, rolls and
// revokes them, and publishes signed bundles of them.
//
// A [Home] is a folder with the store of all keys and one folder for each
// bundle, with its policy, its signing keys and what was published last. Make
// one with [Home.Init] and open it with [Open]. A [Bundle] is its settings and
// files; its [Keyring] changes keys, and its [Publisher] signs them and writes
// them out: every change of keys is signed in the transaction that makes it.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/control/store/sqlstore"
)

// storeFile is the store of keys in a home's folder.
const storeFile = "keystile.db"

// Home is an opened control plane.
type Home struct {
	dir string
	now func() time.Time

	mu     sync.Mutex
	opened store.Store // nil until somebody asks for it
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

// store opens the store of keys. An empty file is none: SQLite would take it for a
// store without keys.
func (h *Home) store() (store.Store, error) {
	if info, err := os.Stat(h.storeFile()); err == nil && info.Size() == 0 {
		return nil, fmt.Errorf("the key store %s is empty: put a copy of it there, or take over what is published with `caddy keystile keys restore`", h.storeFile())
	}
	s, err := h.openStore(sqlstore.OpenSQLite)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("the key store %s is gone: put a copy of it there, or take over what is published with `caddy keystile keys restore`", h.storeFile())
	}
	return s, err
}

// makeStore is store, which is made if it is not there.
func (h *Home) makeStore() (store.Store, error) {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return nil, err
	}
	return h.openStore(sqlstore.MakeSQLite)
}

func (h *Home) storeFile() string { return filepath.Join(h.dir, storeFile) }

func (h *Home) openStore(open func(string) (store.Store, error)) (store.Store, error) {
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
	b, err := h.OpenWithoutPolicy(name)
	if err != nil {
		return nil, err
	}
	return b, b.compile(nil)
}

// OpenWithoutPolicy is [Home.Bundle] that does not read the policy: enough for
// [Publisher.Renew], [Keyring.Revoke] and [Bundle.OpenFile], also while the
// policy's file is being worked on.
func (h *Home) OpenWithoutPolicy(name string) (*Bundle, error) {
	if name == "" {
		var err error
		if name, err = h.onlyBundle(); err != nil {
			return nil, err
		}
	}
	if !bundleName.MatchString(name) {
		return nil, errBundleName(name)
	}
	b, err := h.read(filepath.Join(h.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		err = h.noBundle(name)
	}
	return b, err
}

// noBundle says that a bundle is not there, and which are.
func (h *Home) noBundle(name string) error {
	names, err := h.Bundles()
	if err == nil && len(names) > 0 {
		return fmt.Errorf("bundle %q is not in %s, which has %q; `caddy keystile init %s` makes it", name, h.dir, names, name)
	}
	return fmt.Errorf("bundle %q is not in %s: make it with `caddy keystile init %s`", name, h.dir, name)
}

func errBundleName(name string) error {
	return fmt.Errorf("bundle name %q: use lower-case letters, digits, dash and underscore, at most 63", name)
}

// onlyBundle is the name of the only bundle there is.
func (h *Home) onlyBundle() (string, error) {
	names, err := h.Bundles()
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", fmt.Errorf("no bundle is in %s: make one with `caddy keystile init`", h.dir)
	case len(names) > 1:
		return "", fmt.Errorf("name one of the bundles %q with --bundle", names)
	}
	return names[0], nil
}

// read reads a bundle's folder.
func (h *Home) read(dir string) (*Bundle, error) {
	s, err := readSettings(dir)
	if err != nil {
		return nil, err
	}
	return &Bundle{Settings: s, home: h, dir: dir, before: s}, nil
}
