package canary_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/keystile/keystile/internal/testing/canary"
)

// Every form of a secret in which it is sent is found, and what is left of one that was
// taken out by half.
func TestLook(t *testing.T) {
	const secret = "sk_live_0123456789abcdefghijABCDEFGHIJ01234567"
	requests := canary.Requests("api.example.com", "/v1", secret)
	requests["a half"] = secret[:len(secret)-16]
	requests["the other half"] = secret[len(secret)-16:]
	for _, before := range []string{"", "a", "ab"} {
		requests["base64 behind "+before] = base64.StdEncoding.EncodeToString([]byte(before + secret + "z"))
	}
	for name, request := range requests {
		if len(canary.Look([]string{secret}, request)) == 0 {
			t.Errorf("%s: it is not found in %q", name, request)
		}
	}
	if found := canary.Look([]string{secret}, strings.Repeat("sk_live_REDACTED", 10)); found != nil {
		t.Error(found)
	}
}
