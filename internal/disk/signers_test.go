package disk

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
)

// R74: a private key is told, as the file and in the place of its path, and is never
// repeated.
func TestReadSigners(t *testing.T) {
	private, public, err := note.GenerateKey(rand.Reader, "policy")
	if err != nil {
		t.Fatal(err)
	}
	secret := private[len(private)-30:]
	path := filepath.Join(t.TempDir(), "signers.txt")
	for name, tt := range map[string]struct {
		text string
		want string // in the error; "" for one signer
	}{
		"a signer":              {"# signers\n\n  " + public + "  \n", ""},
		"a private key":         {private + "\n", path + " holds a private key"},
		"one among signers":     {public + "\n" + private + "\n", "name signers.txt instead"},
		"one in a comment":      {"# " + private + "\n" + public + "\n", "holds a private key"},
		"a line that never end": {strings.Repeat("x", 1<<20), path},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSigners(path)
		if tt.want == "" {
			if err != nil || !slices.Equal(got, []string{public}) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadSigners(private); !errors.Is(err, bundle.ErrPrivateKey) || strings.Contains(err.Error(), secret) {
		t.Errorf("as a path: %v", err)
	}
	for _, key := range []string{public, strings.TrimPrefix(private, "PRIVATE+KEY+")} {
		if _, err := ReadSigners(key); err == nil || strings.Contains(err.Error(), key[len(key)-30:]) {
			t.Errorf("a key as a path: %v", err)
		}
	}
}
