package redact

import (
	"strings"
	"testing"

	"github.com/keystile/keystile/core/credential"
)

// R74: neither an API key nor a private key is left, whatever stands beside it.
func TestText(t *testing.T) {
	secret, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Reveal()
	private := "PRIVATE+KEY+shop+0123abcd+AXl0/+aA=="
	for name, tt := range map[string]struct{ text, want string }{
		"a key":               {key, "sk_live_[secret]"},
		"quoted":              {`key "` + key + `": none`, `key "sk_live_[secret]": none`},
		"a longer prefix":     {"acme_" + key, "acme_sk_live_[secret]"},
		"two":                 {key + "," + key + " " + key, "sk_live_[secret],sk_live_[secret] sk_live_[secret]"},
		"a private key":       {"signer " + private + ": bad", "signer [a private key]: bad"},
		"in quotes":           {`"` + private + `"`, `"[a private key]"`},
		"both":                {private + "\n" + key, "[a private key]\nsk_live_[secret]"},
		"a key ID":            {"key_Zralf2y4PVLQnhJb", "key_Zralf2y4PVLQnhJb"},
		"a hash":              {strings.Repeat("0123456789abcdef", 4), strings.Repeat("0123456789abcdef", 4)},
		"longer than a key's": {key + "x", key + "x"},
		"a verifier key":      {"shop+0123abcd+AXl0/+aA==", "shop+0123abcd+AXl0/+aA=="},
	} {
		if got := Text(tt.text); got != tt.want {
			t.Errorf("%s: %q instead of %q", name, got, tt.want)
		}
		if holds := HoldsKey(tt.text) || HoldsPrivateKey(tt.text); holds != (tt.text != tt.want) {
			t.Errorf("%s: %v", name, holds)
		}
	}
}
