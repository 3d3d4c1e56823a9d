package main_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/testing/canary"
	"github.com/keystile/keystile/internal/testing/envoy"
)

// R74: nothing that the real Envoy writes holds an API key or a private key that a
// client has sent, wherever it was sent and whatever came of the request: its log at the
// level of the examples, the access log of examples/envoy, statistics and what its admin
// endpoint tells.
func TestCanary(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, good := a.key()
	id, revoked := a.key()
	if _, err := a.Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	unknown, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := credential.Generate("rk", "test")
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := note.GenerateKey(nil, "canary")
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{good, revoked, unknown.Reveal(), bad.Reveal()[:len(bad.Reveal())-3], private}
	dir := t.TempDir()
	accessLog := filepath.Join(dir, "access.log")
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}, "filter_state": true}, options{
		workers: 2,
		hcm: func(h envoy.Object) {
			h["access_log"] = []envoy.Object{{"name": "file", "typed_config": envoy.Object{
				"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": accessLog,
				"log_format": envoy.Object{"json_format": envoy.Object{"status": "%RESPONSE_CODE%", "keystile": "%FILTER_STATE(wasm.keystile:PLAIN)%"}},
			}}}
		},
	})
	e.within("in force", 200, good)
	servers := []canary.Server{{Address: e.https, Name: "api.test"}, {Address: e.http}}
	if err := canary.Send(servers, "api.test", "/v1/payments", secrets...); err != nil {
		t.Fatal(err)
	}
	e.upstream.Close() // and now all that goes on is a 503
	if err := canary.Send(servers, "api.test", "/v1/payments", good); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/stats", "/stats/prometheus", "/config_dump", "/clusters", "/listeners", "/server_info", "/runtime"} {
		answer, err := http.Get("http://" + e.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(path, answer.Status, err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(path, "/", "_")), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.process.Close(); err != nil { // and its logs are complete
		t.Fatal(err)
	}
	log := strings.Join(e.process.Lines(), "\n")
	found, err := canary.LookInFiles(secrets, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(found, canary.Look(secrets, log)...) {
		t.Error(f)
	}
	access, err := os.ReadFile(accessLog)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"log": log, "access log": string(access)} {
		if n := strings.Count(text, "in_url"); n < 10 {
			t.Errorf("the %s tells of %d keys in URLs", what, n)
		}
	}
}

// A private key in place of a signer is turned away, and not told to anybody.
func TestCanarySigner(t *testing.T) {
	private, _, err := note.GenerateKey(nil, "canary")
	if err != nil {
		t.Fatal(err)
	}
	a := newAPI(t, "shop", "api.test")
	bundle := a.inline()
	bundle["signers"] = []string{private}
	e := newEdge(t)
	raw, err := json.Marshal(envoy.Object{"bundles": envoy.Object{"shop": bundle}})
	if err != nil {
		t.Fatal(err)
	}
	process, err := envoy.Start(t.TempDir(), e.config(string(raw), options{}), 1, nil)
	t.Cleanup(func() { process.Close() })
	log := strings.Join(process.Lines(), "\n")
	if err == nil && e.get("x") != http.StatusServiceUnavailable || !strings.Contains(log, "keystile: ") {
		t.Errorf("Envoy runs with a private key for a signer: %v\n%s", err, log)
	}
	if found := canary.Look([]string{private}, log); found != nil {
		t.Error(found)
	}
}
