package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keystile/keystile/core/bundle"
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
)

// readSettings reads the settings in a bundle's folder.
func readSettings(dir string) (s Settings, err error) {
	path := filepath.Join(dir, settingsFile)
	raw, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
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

// trust is what edges that have these settings believe.
func (s *Settings) trust() (*bundle.Trust, error) {
	return bundle.NewTrust(s.Name, s.Audience, max(s.Threshold, 1), s.Signers...)
}
