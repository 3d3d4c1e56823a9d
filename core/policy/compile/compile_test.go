package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
	"github.com/keystile/keystile/internal/document"
)

const good = `name: api
sources:
  - {header: Authorization, scheme: Bearer}
kinds:
  secret: {prefix: sk}
  restricted: {prefix: rk, scoped: true}
environments:
  live: {hosts: [api.example.com]}
  test: {hosts: [sandbox.example.com]}
scopes:
  "{thing}:read":
  "{thing}:write": {implies: "{thing}:read"}
routes:
  - name: things
    path: ["/v1/{thing}", "/v1/{thing}/{rest...}"]
    scopes:
      GET: "{thing}:read"
      POST: "{thing}:write"
`

func TestGood(t *testing.T) {
	p, err := Compile("good.yaml", []byte(good), Options{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := policy.Decode(p.Encode())
	if err != nil || string(again.Encode()) != string(p.Encode()) {
		t.Errorf("the policy changes when it is written and read: %v", err)
	}
	if d := p.Routes[0].Demands[shape.GET].Scopes[0]; len(d.Accept) != 2 || d.Accept[1] != "{thing}:write" {
		t.Errorf("reading is accepted with %q", d.Accept)
	}
	if d := p.Routes[0].Demands[shape.PUT]; d.Free || len(d.Scopes) > 0 || d.OwnKey != "" {
		t.Errorf("a method that no line names is met by %+v", d)
	}
}

// Each mistake is an error with its place and a way to mend it. What is named twice is
// one (R51).
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown field", "name: api", "name: api\nnmae: x", `good.yaml:2:1: unknown field "nmae"`},
		{"unknown field deep", "prefix: sk", "prefix: sk, prefx: x", `unknown field "prefx"`},
		{"field twice", "name: api", "name: api\nname: api", "good.yaml:2:1: mapping key \"name\" already defined"},
		{"kind twice", "  restricted: {", "  secret: {prefix: x}\n  restricted: {", "already defined"},
		{"not YAML", "kinds:", "kinds: [", "good.yaml:"},
		{"no name", "name: api\n", "", "give the policy a name"},
		{"name with a space", "name: api", "name: a b", "good.yaml:1:7: name \"a b\""},
		{"number for a text", "prefix: sk", "prefix: 5", "put this in quotes"},
		{"list for a text", "prefix: sk", "prefix: [sk]", "one text is expected"},
		{"header with a space", "header: Authorization", "header: X Y", "good.yaml:3:14: header"},
		{"source twice", "sources:\n", "sources:\n  - {header: authorization}\n", "is a source already"},
		{"source under an alias", "sources:\n", "sources:\n  - {header: X-Key}\n  - {header: x-kEY}\n", "is a source already"},
		{"cookie as a source", "header: Authorization", "header: cookie", "good.yaml:3:14: header \"cookie\": a key in a cookie is always denied"},
		{"Basic as a scheme", "scheme: Bearer", "scheme: BASIC", "good.yaml:3:37: scheme \"BASIC\" never carries a key as it is"},
		{"Digest as a scheme", "scheme: Bearer", "scheme: Digest", "use Bearer"},
		{"Basic for the customer token", "scopes:\n", "customer_token: {header: X-Token, scheme: basic, algorithm: RS256, keys: k}\nscopes:\n", "never carries a key"},
		{"host with a scheme", "[api.example.com]", "[\"https://api.example.com\"]", "write the host alone, without https://"},
		{"host with a path", "[api.example.com]", "[api.example.com/v1]", "without a path"},
		{"host with a star", "[api.example.com]", "[\"*.example.com\"]", "a host has no star"},
		{"host that is none", "[api.example.com]", "[\"api example\"]", "this is no host name"},
		{"identity in Host", "routes:", "identity_headers: {tenant: Host}\nroutes:", "has a meaning of its own"},
		{"identity in a length", "routes:", "identity_headers: {tenant: Content-Length}\nroutes:", "has a meaning of its own"},
		{"identity in Connection", "routes:", "identity_headers: {tenant: connection}\nroutes:", "has a meaning of its own"},
		{"identity in what proxies write", "routes:", "identity_headers: {tenant: X-Forwarded-For}\nroutes:", "has a meaning of its own"},
		{"identity in a method override", "routes:", "identity_headers: {tenant: X-HTTP-Method}\nroutes:", "has a meaning of its own"},
		{"identity in a source", "routes:", "identity_headers: {tenant: authorization}\nroutes:", "is a source of the API key"},
		{"identity twice", "routes:", "identity_headers: {tenant: X-T, kind: x-t}\nroutes:", "two things"},
		{"identity under another's default", "routes:", "identity_headers: {tenant: Keystile-Kind}\nroutes:", "two things"},
		{"no sources", "sources:\n  - {header: Authorization, scheme: Bearer}\n", "", "has no sources"},
		{"kind without prefix", "secret: {prefix: sk}", "secret: {}", "good.yaml:5:3: kind \"secret\" has no prefix"},
		{"key ID with an escape", "secret: {prefix: sk}", "secret: {prefix: sk, id_prefix: \"a%2f\"}", "id_prefix \"a%2f\""},
		{"prefix in upper case", "prefix: sk", "prefix: SK", "lower-case"},
		{"prefix twice", "prefix: rk", "prefix: sk", "given twice"},
		{"names too long", "prefix: sk", "prefix: secretsecretsecret", "shorten one"},
		{"undeclared kind", "  - name: things", "  - name: things\n    kinds: [public]", "good.yaml:15:13: kind \"public\" is not declared"},
		{"environment without hosts", "test: {hosts: [sandbox.example.com]}", "test: {}", "some environments have hosts and some none"},
		{"host with a port of its own", "[api.example.com]", "[\"api.example.com:443\"]", "without port 443"},
		{"host in upper case", "api.example.com", "API.example.com", "lower case"},
		{"hosts for nothing", "scopes:", "hosts: [x.example]\nscopes:", "for no environment"},
		{"scope with two parameters", "\"{thing}:read\":\n", "\"{thing}:{x}\":\n", "at most one {parameter}"},
		{"implies undeclared", "implies: \"{thing}:read\"", "implies: \"other\"", "which is not declared"},
		{"demand undeclared", "GET: \"{thing}:read\"", "GET: \"{thing}:list\"", "is not declared under scopes"},
		{"demand of a parameter that is not there", "[\"/v1/{thing}\", \"/v1/{thing}/{rest...}\"]", "/v1/{other}", "has no single-segment parameter {thing}"},
		{"demand of nothing", "GET: \"{thing}:read\"", "GET: []", "name the scopes"},
		{"method twice", "POST: \"{thing}:write\"", "GET POST: \"{thing}:write\"", "method GET has two lines"},
		{"unknown method", "POST: \"{thing}:write\"", "post: \"{thing}:write\"", "name methods"},
		{"HEAD listed", "    scopes:", "    methods: [HEAD]\n    scopes:", "which brings HEAD"},
		{"scopes of no scoped kind", "    scopes:", "    kinds: [secret]\n    scopes:", "none of its kinds is scoped"},
		{"public route with a demand", "    scopes:", "    public: true\n    scopes:", "can demand nothing"},
		{"pattern without slash", "\"/v1/{thing}\"", "\"v1/{thing}\"", "does not begin with a slash"},
		{"pattern with a star", "\"/v1/{thing}\"", "\"/v1/*\"", "a star is a star in a path"},
		{"pattern with a colon", "\"/v1/{thing}\"", "\"/v1/:thing\"", "write {thing} for one segment"},
		{"pattern with a dot segment", "\"/v1/{thing}\"", "\"/v1/../{thing}\"", "dot segments"},
		{"pattern with half a parameter", "\"/v1/{thing}\"", "\"/v1/x{thing}\"", "fills a whole segment"},
		{"parameter twice", "\"/v1/{thing}\"", "\"/{thing}/{thing}\"", "given twice"},
		{"rest in the middle", "\"/v1/{thing}\"", "\"/{rest...}/{thing}\"", "only stand at the end"},
		{"route twice", "routes:", "routes:\n  - {name: things, path: /x, scopes: {any: none}}", "given twice"},
		{"patterns that conflict", "routes:", "routes:\n  - {name: x, path: \"/{a}/x\", scopes: {any: none}}", "neither is more specific"},
		{"patterns that differ in case", "routes:", "routes:\n  - {name: x, path: \"/V1/{a}\", scopes: {any: none}}", "differ in case alone"},
		{"token demanded and not described", "    scopes:", "    customer_token: true\n    scopes:", "describes none"},
		{"unknown restriction", "scopes:\n  \"{thing}:read\"", "restrictions: [port]\nscopes:\n  \"{thing}:read\"", "use ip, referrer or endpoint"},
		{"answer to nothing", "routes:", "answers: {foo: {}}\nroutes:", "neither a status nor a reason"},
		{"answer with line end", "routes:", "answers: {\"401\": {challenge: \"a\\nb\"}}\nroutes:", "visible ASCII"},
		{"answer of a status without words", "routes:", "answers: {no_route: {status: 404}}\nroutes:", "give that answer a title"},
		{"body with an unknown value", "routes:", "content_type: a/b\nbody: '${foo}'\nroutes:", "names a value other than"},
		{"body alone", "routes:", "body: x\nroutes:", "give content_type and body together"},
		{"bad length of time", "routes:", "grants: {rotate: 90 days}\nroutes:", "is no length of time"},
		{"max below min", "routes:", "grants: {min: 2, max: 1}\nroutes:", "max is below min"},
		{"unknown identity header", "routes:", "identity_headers: {name: X}\nroutes:", "use key_id"},
	} {
		source := strings.Replace(good, tt.old, tt.new, 1)
		if source == good {
			t.Errorf("%s: the test changes nothing", tt.name)
			continue
		}
		_, err := Compile("good.yaml", []byte(source), Options{})
		var located *document.Error
		if !errors.As(err, &located) || !strings.Contains(err.Error(), tt.want) || located.Line < 1 {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestHosts(t *testing.T) {
	p, err := Compile("good.yaml", []byte(good), Options{Hosts: map[string][]string{"live": {"a.example", "b.example:8443"}}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]policy.Set{"a.example": 1, "b.example:8443": 1, "sandbox.example.com": 2, "api.example.com": 0} {
		if got, _ := p.HostEnvironments(host); got != want {
			t.Errorf("%s: environments %b", host, got)
		}
	}
	// Hosts for each environment take the place of a document's for all.
	shared := strings.Replace(strings.Replace(good, "live: {hosts: [api.example.com]}\n  test: {hosts: [sandbox.example.com]}", "live:\n  test:", 1), "scopes:\n", "hosts: [api.example.com]\nscopes:\n", 1)
	p, err = Compile("shared.yaml", []byte(shared), Options{Hosts: map[string][]string{"live": {"a.example"}, "test": {"a.example", "b.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]policy.Set{"a.example": 3, "b.example": 2, "api.example.com": 0} {
		if got, _ := p.HostEnvironments(host); got != want {
			t.Errorf("%s: environments %b", host, got)
		}
	}
	if _, err := Compile("good.yaml", []byte(good), Options{Hosts: map[string][]string{"prod": {"a.example"}}}); err == nil {
		t.Error("hosts of an environment that is not there were accepted")
	}
}

// R61, R66: key sets that must not check tokens.
func TestJWKS(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...any) []byte {
		b, err := json.Marshal(map[string]any{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	jwk := func(key any, id string, change func(map[string]any)) any {
		b, err := jose.JSONWebKey{Key: key, KeyID: id}.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(m)
		}
		return m
	}
	with := func(name string, value any) func(map[string]any) { return func(m map[string]any) { m[name] = value } }
	pub := &rsaKey.PublicKey
	for _, tt := range []struct {
		name, algorithm string
		set             []byte
		ok              bool
	}{
		{"RSA", "RS256", set(jwk(pub, "a", nil)), true},
		{"RSA without kid, alone", "RS256", set(jwk(pub, "", nil)), true},
		{"EC", "ES256", set(jwk(&ec.PublicKey, "a", nil)), true},
		{"sig and verify", "RS256", set(jwk(pub, "a", func(m map[string]any) { m["use"], m["key_ops"] = "sig", []string{"verify"} })), true},
		{"not JSON", "RS256", []byte("x"), false},
		{"empty", "RS256", set(), false},
		{"private", "RS256", set(jwk(rsaKey, "a", nil)), false},
		{"symmetric", "RS256", set(map[string]any{"kty": "oct", "k": "c2VjcmV0"}), false},
		{"weak", "RS256", set(jwk(&weak.PublicKey, "a", nil)), false},
		{"exponent 1", "RS256", set(jwk(pub, "a", with("e", "AQ"))), false},
		{"another type", "RS256", set(jwk(&ec.PublicKey, "a", nil)), false},
		{"another algorithm", "RS256", set(jwk(pub, "a", with("alg", "RS512"))), false},
		{"for encryption", "RS256", set(jwk(pub, "a", with("use", "enc"))), false},
		{"for signing", "RS256", set(jwk(pub, "a", with("key_ops", []string{"sign"}))), false},
		{"for signing too", "RS256", set(jwk(pub, "a", with("key_ops", []string{"verify", "sign"}))), false},
		{"for nothing", "RS256", set(jwk(pub, "a", with("key_ops", []string{}))), false},
		{"kid twice", "RS256", set(jwk(pub, "a", nil), jwk(pub, "a", nil)), false},
		{"no kid among two", "RS256", set(jwk(pub, "a", nil), jwk(pub, "", nil)), false},
	} {
		if _, err := parseJWKS(tt.algorithm, tt.set); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, source []byte) {
		p, err := Compile("x", source, Options{})
		if err != nil {
			return
		}
		if _, err := policy.Decode(p.Encode()); err != nil {
			t.Errorf("a policy that compiles cannot be read: %v", err)
		}
	})
}
