package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
)

// resolved is a [Bundle] with defaults and placeholders filled in. Its JSON form
// names the guard in the pool.
type resolved struct {
	Name    string
	Bundle  Bundle
	Signers []string
	State   string // "" where none is kept
}

func (b *Bundle) resolve(name string) (*resolved, error) {
	c := &resolved{Name: name, Bundle: *b}
	repl := caddy.NewReplacer()
	fill := func(s string) (string, error) { return repl.ReplaceOrErr(s, true, true) }
	var err error
	if b.File == "" {
		return nil, errors.New("it has no file: name the packed file, or the directory, that `caddy keystile bundle build` writes")
	}
	if c.Bundle.File, err = fill(b.File); err != nil {
		return nil, err
	}
	if c.Bundle.File, err = filepath.Abs(c.Bundle.File); err != nil {
		return nil, err
	}
	if c.State, err = b.statePath(name, fill); err != nil {
		return nil, err
	}
	if b.SignerFile != "" {
		if c.Bundle.SignerFile, err = fill(b.SignerFile); err != nil {
			return nil, err
		}
		if c.Signers, err = disk.ReadSigners(c.Bundle.SignerFile); err != nil {
			return nil, fmt.Errorf("signer_file: %w", err)
		}
	}
	for _, s := range b.Signers {
		if s, err = fill(s); err != nil {
			return nil, err
		}
		c.Signers = append(c.Signers, strings.TrimSpace(s))
	}
	if all, err := json.Marshal(c); err != nil || bundle.HoldsPrivateKey(string(all)) {
		return nil, cmp.Or(err, bundle.ErrPrivateKey) // also in another option, which an error could quote
	}
	return c, nil
}

// StateOff is the value of `state` with which nothing is kept across restarts.
const StateOff = "off"

func (b *Bundle) statePath(name string, fill func(string) (string, error)) (string, error) {
	switch b.State {
	case StateOff:
		return "", nil
	case "":
		return filepath.Join(caddy.AppDataDir(), "keystile", url.PathEscape(name)+".state"), nil
	}
	path, err := fill(b.State)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
