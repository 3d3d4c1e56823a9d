package main_test

import (
	"context"
	"testing"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/envoy"
)

// R39: a key for some addresses is about the other end of the connection. What stands in
// X-Forwarded-For is not, whatever Envoy makes of it, unless client_ip says so: the
// conformance tables run with that.
func TestAddressOfAKey(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	key := func(address string) string {
		_, secret, err := a.Keyring().Create(context.Background(), control.NewKey{Kind: "secret", Environment: "live", IPs: []string{address}})
		if err != nil {
			t.Fatal(err)
		}
		return secret.Reveal()
	}
	local, far := key("127.0.0.1"), key("192.0.2.1")
	for name, hcm := range map[string]func(envoy.Object){
		"a trusted hop":     func(hcm envoy.Object) { hcm["xff_num_trusted_hops"] = 1 },
		"no remote address": func(hcm envoy.Object) { hcm["use_remote_address"] = false },
	} {
		e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{hcm: hcm})
		if l, f := e.get(local), e.get(far); l != 200 || f != 403 {
			t.Errorf("%s: the local key is %d, the other %d", name, l, f)
		}
		response, body := e.do("GET", "https://api.test/x", nil, "Authorization: Bearer "+far, "X-Forwarded-For: 192.0.2.1")
		if response.StatusCode != 403 {
			t.Errorf("%s: the address in X-Forwarded-For is taken: %d %s", name, response.StatusCode, body)
		}
		e.process.Close()
	}
}
