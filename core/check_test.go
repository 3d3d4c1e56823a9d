package core

import (
	"testing"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// R72: what one request sets for its customer never reaches another request of the
// same key: the lines that all share are not appended to in place.
func TestCustomersOfOneKey(t *testing.T) {
	shared := &entry{upstream: make([]Header, 1, 4)}
	s := &snapshot{bundle: &bundle.Bundle{Policy: &policy.Policy{Identity: policy.Identity{Customer: "Keystile-Customer"}}}}
	set := func(customer string) []Header {
		c := &check{snapshot: s, entry: shared}
		c.decision.Customer = customer
		return c.upstream()
	}
	first := set("alice")
	set("bob")
	if first[1].Value != "alice" {
		t.Errorf("alice's request goes on as %s's", first[1].Value)
	}
}
