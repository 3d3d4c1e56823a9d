package credential

import (
	"fmt"
	"log/slog"
)

const redacted = "REDACTED"

// Secret holds an API key on its way to the one person who may see it. Every
// way of formatting, logging or marshalling it gives "REDACTED"; only
// [Secret.Reveal] gives the key.
type Secret struct{ key string }

// Reveal returns the API key itself.
func (s Secret) Reveal() string { return s.key }

// Digest returns the digest of the key.
func (s Secret) Digest() Digest { return DigestOf(s.key) }

// Hint returns the last four characters, which may be stored and shown.
func (s Secret) Hint() string {
	if len(s.key) < 4 {
		return ""
	}
	return s.key[len(s.key)-4:]
}

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

var (
	_ fmt.Formatter  = Secret{}
	_ fmt.GoStringer = Secret{}
	_ slog.LogValuer = Secret{}
)
