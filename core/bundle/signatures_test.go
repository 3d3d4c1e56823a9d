package bundle

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// Who is trusted, and who of them has signed, is told by names and hashes alone.
func TestSignatures(t *testing.T) {
	first, second, stranger := newSigner(t, "first"), newSigner(t, "second"), newSigner(t, "stranger")
	active, standby := newSigner(t, "active"), newSigner(t, "standby")
	trust, err := NewTrust("test", DefaultAudience, 1, first.key, second.key)
	if err != nil {
		t.Fatal(err)
	}
	publication, err := Publish(testPolicy(t), "test", DefaultAudience, 1000, []string{standby.key, active.key}, second.Signer, stranger.Signer)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := publication.Sign(nil, 1000, time.Hour, active.Signer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := signed.Open(trust)
	if err != nil {
		t.Fatal(err)
	}
	named := func(s signer, signed bool) Signature {
		return Signature{strings.Join(strings.Split(s.key, "+")[:2], "+"), signed}
	}
	for name, tt := range map[string]struct{ got, want []Signature }{
		"signers":                  {trust.Signatures(&b.Mark), []Signature{named(first, false), named(second, true)}},
		"signers without a bundle": {trust.Signatures(nil), []Signature{named(first, false), named(second, false)}},
		"publishers":               {b.Mark.Signatures(), []Signature{named(standby, false), named(active, true)}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: %v, and not %v", name, tt.got, tt.want)
		}
	}
}
