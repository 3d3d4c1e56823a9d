package command

import (
	"io"
	"os"
	"regexp"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
)

var (
	// keyForm is how an API key of any policy looks; key IDs are shorter.
	keyForm = regexp.MustCompile(`[a-z0-9]{1,14}(_|%5[fF])[a-z0-9]{1,14}(_|%5[fF])[0-9A-Za-z]{20,}`)
	// privateForm is how a private key begins, and headlessForm one without that.
	privateForm  = regexp.MustCompile(`(?i)PRIVATE(\+|%2B)KEY(\+|%2B)\S*`)
	headlessForm = regexp.MustCompile(`[^\s+"=]+\+[0-9a-f]{8}\+[0-9A-Za-z+/]{44}`)
)

// refuseSecret refuses a secret that was given as what: it stands in the shell's
// history and in the list of processes.
func refuseSecret(what, value string) error {
	switch {
	case holdsPrivateKey(value):
		return usagef("%s is a private key, which is not shown here: it is in the shell's history now, and whoever reads it there can sign. "+
			"Replace it with `caddy keystile bundle rotate`, and name signers.txt, a verifier key, or the key's file instead", what)
	case holdsAPIKey(value):
		return errAPIKey(what)
	}
	return nil
}

func errAPIKey(what string) error {
	return usagef("%s is an API key, which is not shown here: it is in the shell's history now, so roll or revoke it. "+
		"`caddy keystile keys find` reads an API key from standard input, and says its ID", what)
}

// keepKey refuses to write over a signing key.
func keepKey(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return nil // whoever writes says what is wrong
	}
	defer f.Close()
	begin, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err == nil && holdsPrivateKey(string(begin)) {
		err = usagef("%s holds a signing key, and would be written over: name another file", path)
	}
	return err
}

func holdsPrivateKey(s string) bool {
	return bundle.HoldsPrivateKey(s) || privateForm.MatchString(s) || headlessPrivateKey(s) != ""
}

// headlessPrivateKey is a private key in s that begins with its name; it looks like a
// verifier key, and only its hash tells.
func headlessPrivateKey(s string) string {
	for _, m := range headlessForm.FindAllString(s, -1) {
		for ; m[0] != '+'; m = m[1:] { // what stands before may be no part of the name
			if _, err := note.NewSigner("PRIVATE+KEY+" + m); err == nil {
				return m
			}
		}
	}
	return ""
}

// mistyped is the least length of a body that counts as one without its checksum:
// tenants may have IDs of that form with 20 to 27 characters.
const mistyped = 30

// holdsAPIKey says whether an API key is in s: one whose checksum fits, or a text of
// that form that no name or path has by chance.
func holdsAPIKey(s string) bool {
	for _, m := range keyForm.FindAllString(s, -1) {
		body := m[strings.LastIndexAny(m, "_%")+1:]
		if credential.Checksummed(m) || len(body) >= mistyped &&
			strings.ContainsAny(body, "0123456789") && body != strings.ToLower(body) && body != strings.ToUpper(body) {
			return true
		}
	}
	return false
}

// redact takes secrets out of the text of an error. Whoever writes an error keeps them
// out: this is for what was overlooked.
func redact(s string) string {
	s = privateForm.ReplaceAllString(s, "[private key]")
	for m := headlessPrivateKey(s); m != ""; m = headlessPrivateKey(s) {
		s = strings.ReplaceAll(s, m, "[private key]")
	}
	return keyForm.ReplaceAllString(s, "[API key]")
}
