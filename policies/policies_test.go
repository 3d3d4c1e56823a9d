package policies_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

// Every shipped table holds on core, and each of its rows can fail.
// The tables show what policies promise, among it R6 (server names), R14 (path and query as
// they were decided on), R19 and R21 (methods), R24 (one host), R37 (Connection), R49
// (tenants), R38 and R62–R65 (customer tokens) and R77 (no-store).
func TestConformance(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			document, err := policies.Policy(name)
			if err != nil {
				t.Fatal(err)
			}
			source, err := policies.Table(name)
			if err != nil {
				t.Fatal(err)
			}
			runTable(t, document, source)
		})
	}
}

// The worked example of the README is one that works.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(readme), "## A seventh API")
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(example, -1)
	if !ok || len(blocks) != 2 {
		t.Fatal("the example is not where it was")
	}
	runTable(t, []byte(blocks[0][1]), []byte(blocks[1][1]))
}

func runTable(t *testing.T, document, source []byte) {
	t.Helper()
	tab, err := table.Load("conformance.yaml", source)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tab.Issue("policy.yaml", document)
	if err != nil {
		t.Fatal(err)
	}
	host, err := table.NewCore(f)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := table.Run(tab, f, host)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Err != nil {
			t.Errorf("%s: %v", o.Name(), o.Err)
		}
	}
	for _, blind := range table.Mutate(outcomes) {
		t.Error(blind)
	}
}

// No shipped policy has a literal with a character that clients may escape, and only
// such a one tells all readings of a path apart.
func TestReadings(t *testing.T) {
	runTable(t, []byte(`
name: readings
sources: [{header: X-Key}]
kinds: {secret: {prefix: sk}, app: {prefix: ak, scoped: true}}
environments: {live: }
scopes: {"{box}:read": , admin: }
routes:
  - {name: box, path: ["/v1/{box}", "/v1/{box}/{rest...}"], scopes: {GET: "{box}:read"}}
  - {name: all, path: "/v1/all:boxes", methods: [GET], scopes: {GET: admin}}
  - {name: free, path: "/v1/free@last", public: true}
`), []byte(`
keys:
  secret: {kind: secret, environment: live}
  app: {kind: app, environment: live, scopes: ["A@b:read", "a@b:read"]}
answers:
  no: {status: 403, body: '{"type":"about:blank","title":"Forbidden","status":403,"detail":"This key may not do this."}'}
  who: {status: 401, body: '{"type":"about:blank","title":"Unauthorized","status":401,"detail":"Missing or invalid API key."}'}
rows:
  - name: itself, and what no reading makes of it, {it}
    with: ["GET https://a.test/v1/all:boxes", "GET https://a.test/v1/all%3Abox", "GET https://a.test/v1/all%3Aboxes/x", "GET https://a.test/v1/All%3Aboxes2/", "POST https://a.test/v1/free%40", "GET https://a.test/v1/all%20boxes"]
    request: "{it}"
    headers: ["X-Key: {secret}"]
    reason: ok
    upstream: {Keystile-Key-Id: "{secret.id}", Keystile-Kind: secret, Keystile-Environment: live}
  - name: another route in one reading, {it}
    with: ["all%3Aboxes", "all%3aboxes", "ALL:boxes", "all:boxes/", "All%3Aboxes", "all%3Aboxes/", "aLL:boxes/", "all:boxeS/", "All%3aboxes/"]
    request: GET https://a.test/v1/{it}
    headers: ["X-Key: {secret}"]
    reason: no_route
    answer: no
  - {name: whatever the method, request: POST https://a.test/v1/all%3Aboxes, headers: ["X-Key: {secret}"], reason: no_route, answer: no}
  - {name: no way around the key, request: GET https://a.test/v1/free%40last, reason: missing, answer: who}
  - {name: a public route, request: GET https://a.test/v1/free@last, reason: ok}
  - name: the scopes of both readings, {it}
    with: ["a@b", "A@b", "a@b/", "A@b/x"]
    request: GET https://a.test/v1/{it}
    headers: ["X-Key: {app}"]
    reason: ok
    upstream: {Keystile-Key-Id: "{app.id}", Keystile-Kind: app, Keystile-Environment: live, Keystile-Scopes: "A@b:read a@b:read"}
  - name: a scope of one reading is missing, {it}
    with: ["a%40b", "A%40b", "a%40b/", "a@B", "a@b%21", "A@B/"]
    request: GET https://a.test/v1/{it}
    headers: ["X-Key: {app}"]
    reason: scope
    answer: no
`))
}

// Identity headers under other names, and a customer token under a name that has
// aliases, are as safe as the usual ones.
func TestRenamedHeaders(t *testing.T) {
	runTable(t, []byte(`
name: renamed
sources: [{header: X-Key}]
kinds: {secret: {prefix: sk}}
environments: {live: }
identity_headers: {key_id: X-Consumer-Id, kind: "", environment: X-Env, customer: X-User}
customer_token: {header: X-User-Token, scheme: JWT, algorithm: EdDSA, issuer: "https://auth.test", audience: renamed, keys: users, bind: {env: environment}}
routes:
  - {name: open, path: /open}
  - {name: user, path: /user, customer_token: true}
`), []byte(`
keys:
  secret: {kind: secret, environment: live}
tokens:
  alice: {claims: {iss: "https://auth.test", aud: renamed, exp: 1h, sub: alice, env: live}}
rows:
  - name: aliases with {it} between the words
    with: ["-", "_", "~"]
    request: GET https://a.test/open
    headers: ["X-Key: {secret}", "X{it}Consumer{it}Id: evil", "X{it}User: evil", "X{it}User{it}Token: JWT {alice}"]
    reason: ok
    no_upstream: ["X{it}User", "X{it}User{it}Token", "X_consumer_id", "X~consumer~id"]
    upstream_lines: ["X-Consumer-Id: {secret.id}", "X-Env: live"]
  - name: an alias of the token beside it, {it}
    with: ["X_User_Token", "X.User-Token"]
    request: GET https://a.test/user
    headers: ["X-Key: {secret}", "X-User-Token: JWT {alice}", "{it}: JWT evil"]
    reason: ok
    no_upstream: ["{it}"]
    upstream_lines: ["X-Consumer-Id: {secret.id}", "X-User: alice", "X-User-Token: JWT {alice}"]
`))
}
