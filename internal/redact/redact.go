// Package redact takes secrets out of text that people or files will get: API keys of
// any policy, and signing keys. It goes by their shape alone; call [Text] on what is
// about to be said.
package redact

import "regexp"

// An API key of any policy: what stands before its body, and a body of 32 characters
// and six of checksum, with no further one before or after.
var anyKey = regexp.MustCompile(`\b([0-9A-Za-z_]+_)[0-9A-Za-z]{38}\b`)

// A signing key in the form of golang.org/x/mod/sumdb/note.
var anyPrivateKey = regexp.MustCompile(`PRIVATE\+KEY\+[0-9A-Za-z+/=._-]*`)

// HoldsKey says whether text holds what looks like an API key of some policy.
func HoldsKey(text string) bool { return anyKey.MatchString(text) }

// HoldsPrivateKey says whether text holds a signing key.
func HoldsPrivateKey(text string) bool { return anyPrivateKey.MatchString(text) }

// Text returns text without API keys and signing keys. What stands before an API
// key's body stays, since it says which kind it was.
func Text(text string) string {
	text = anyPrivateKey.ReplaceAllString(text, "[a private key]")
	return anyKey.ReplaceAllString(text, "${1}[secret]")
}
