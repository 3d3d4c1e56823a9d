package policy

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/shape"
)

func parsePath(t testing.TB, s string) *shape.Path {
	t.Helper()
	p := new(shape.Path)
	if !p.Parse(s) {
		t.Fatalf("path %q is not canonical", s)
	}
	return p
}

// R16, R18: patterns are those of net/http: whatever its mux selects, Match selects, where
// neither case nor a trailing slash is in play.
func TestMatchLikeServeMux(t *testing.T) {
	segments := []string{"a", "b", "c", "{x}", "{y}"}
	rng := rand.New(rand.NewPCG(1, 2))
	pattern := func() string {
		var s strings.Builder
		used := map[string]bool{}
		for range 1 + rng.IntN(4) {
			seg := segments[rng.IntN(len(segments))]
			if used[seg] && seg[0] == '{' {
				seg = "a"
			}
			used[seg] = true
			s.WriteString("/" + seg)
		}
		switch rng.IntN(4) {
		case 0:
			s.WriteString("/{rest...}")
		}
		return s.String()
	}
	compared := 0
	for range 3000 {
		mux := http.NewServeMux()
		var routes []Route
		for i := range 2 + rng.IntN(5) {
			text := pattern()
			conflicts := func() (c bool) {
				defer func() { c = recover() != nil }()
				mux.Handle("GET "+text, http.NotFoundHandler())
				return
			}()
			r := Route{Name: string(rune('a' + i)), Patterns: []string{text}, Methods: shape.MethodSet(0).With(shape.GET), Kinds: 1}
			err := CheckRoutes(append(slices.Clone(routes), r))
			if conflicts != (err != nil) {
				t.Fatalf("%q beside %v: net/http conflict %v, ours %v", text, routes, conflicts, err)
			}
			if err == nil {
				routes = append(routes, r)
			}
		}
		rt, err := newRouter(routes)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var s strings.Builder
			for range 1 + rng.IntN(5) {
				s.WriteString("/" + string("abcd"[rng.IntN(4)]))
			}
			request, answer := httptest.NewRequest("GET", "https://h"+s.String(), nil), httptest.NewRecorder()
			handler, want := mux.Handler(request)
			if handler.ServeHTTP(answer, request); answer.Code/100 == 3 {
				continue // to the same path with a slash, which Match never does
			}
			got := ""
			if p := rt.root.match(parsePath(t, s.String()), 0, shape.GET); p != nil {
				got = "GET " + p.text
			}
			compared++
			if got != want {
				t.Fatalf("%s among %v: %q, and net/http says %q", &s, routes, got, want)
			}
		}
	}
	if compared < 10000 {
		t.Errorf("only %d paths were compared", compared)
	}
}

// A path that upstreams could take for another route's selects none, for every
// method; one that is merely in upper case, or ends with a slash, selects its own.
func TestCaseAndSlash(t *testing.T) {
	p := &Policy{}
	route := func(name string, methods shape.MethodSet, patterns ...string) Route {
		return Route{Name: name, Patterns: patterns, Methods: methods, Kinds: 1}
	}
	get, post := shape.MethodSet(0).With(shape.GET), shape.MethodSet(0).With(shape.POST)
	var err error
	if p.router, err = newRouter([]Route{
		route("all", shape.AllMethods, "/v1/{x}", "/v1/{x}/{rest...}"),
		route("sessions", post, "/v1/sessions"),
		route("billing", shape.AllMethods, "/v1/billing", "/v1/billing/{rest...}"),
		route("upper", get, "/V2/A/x"),
		route("lower", get, "/v2/a/y"),
	}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]string{ // for GET and POST
		"/v1/payments":   {"all", "all"},
		"/v1/payments/":  {"all", "all"},
		"/v1/PAYMENTS/x": {"all", "all"},
		"/v1/sessions":   {"all", "sessions"},
		"/v1/sessions/":  {"", ""},
		"/v1/Sessions":   {"", ""},
		"/v1/SESSIONS/":  {"", ""},
		"/v1/sessions/x": {"all", "all"},
		"/v1/billing":    {"billing", "billing"},
		"/v1/billing/":   {"billing", "billing"},
		"/v1/billing/X/": {"billing", "billing"},
		"/v1/Billing":    {"", ""},
		"/v1/bILLING/x":  {"", ""},
		"/V1/payments":   {"", ""},
		"/V2/A/x":        {"upper", ""},
		"/V2/A/y":        {"", ""},
		"/v2/a/y":        {"lower", ""},
		"/v2/a/x":        {"", ""},
		"/v2/a/y/":       {"", ""},
	} {
		for i, m := range []shape.Method{shape.GET, shape.POST} {
			got := ""
			var match Match
			if p.Match(parsePath(t, path), m, &match); match.Route != nil {
				got = match.Route.Name
			}
			if got != want[i] {
				t.Errorf("%s %s: %q, not %q", m, path, got, want[i])
			}
		}
	}
}

// R20, R32, R36: one class of names, however they are spelled.
func TestField(t *testing.T) {
	p := &Policy{Identity: DefaultIdentity, Sources: sourcesOf("X-Api-Key")}
	p.CustomerToken = &CustomerToken{Source: sourcesOf("Authorization")[0]}
	var err error
	if p.headers, err = newFieldNames(p); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Field{
		"X-Api-Key": FieldRemoved, "x-api-key": FieldRemoved, "X_Api_Key": FieldRemoved, "x.api.key": FieldRemoved, "X-Api_key": FieldRemoved,
		"X.API-KEY": FieldRemoved, "Keystile-Key-Id": FieldRemoved, "keystile_key_id": FieldRemoved, "KEYSTILE.TENANT": FieldRemoved,
		"Keystile-Anything-New": FieldRemoved, "keystile_x": FieldRemoved, "HTTP2-Settings": FieldRemoved, "http2_settings": FieldRemoved,
		"X-Http-Method-Override": FieldOverride, "X_HTTP_Method": FieldOverride, "x.method~override": FieldOverride,
		"Authorization": FieldToken, "AUTHORIZATION": FieldToken, "Upgrade": FieldUpgrade, "UPGRADE": FieldUpgrade, "connection": FieldConnection,
		"": FieldOther, "X-Api-Keys": FieldOther, "XApiKey": FieldOther, "Keystil": FieldOther, "Accept": FieldOther, "X-Request-Id": FieldOther,
		"Content-Type": FieldOther, "Cookie": FieldOther, strings.Repeat("x", 1000): FieldOther, "Upgrades": FieldOther,
	} {
		if got := p.Field(name); got != want {
			t.Errorf("%s: %d, not %d", name, got, want)
		}
	}
	// Whatever stands between the words: all separators of RFC 9110's tokens, and more.
	for _, separator := range "!#$%&'*+-.^_`|~ \x00\xff" {
		for _, words := range [][]string{{"Keystile", "Tenant"}, {"x", "API", "Key"}, {"X", "Http", "Method", "Override"}} {
			if name := strings.Join(words, string(separator)); len(string(separator)) == 1 && p.Field(name) == FieldOther {
				t.Errorf("%q goes on", name)
			}
		}
	}
	if !p.IsToken("authorization") || p.IsToken("X-Api-Key") {
		t.Error("the customer token's own field")
	}
	for in, want := range map[string]string{
		"close": "close", "keep-alive, Upgrade": "keep-alive", "keep-alive, keystile-key-id": "keep-alive",
		"X_Api_Key": "", "close,Keystile.Tenant , x-foo": "close, x-foo", " KEYSTILE-SCOPES": "", "close,\tKeystile~Kind\t": "close",
		"Upgrade, HTTP2-Settings": "", "close, X-HTTP-Method-Override": "close", "x-foo, Authorization": "x-foo",
	} {
		if got := p.CleanConnection(in, false); got != want {
			t.Errorf("Connection: %s becomes %q", in, got)
		}
	}
	if got := p.CleanConnection("Upgrade, HTTP2-Settings, Keystile-Kind", true); got != "Upgrade" {
		t.Errorf("a WebSocket's Connection becomes %q", got)
	}
}

// R43.
func TestOrigin(t *testing.T) {
	for _, bad := range []string{"", "shop.example.com", "https://", "https://a/", "https://a/x", "ftp://a", "https://*", "https://*.", "https://a.*.b", "https://u@a", "https://a:0", "null", "https://a?x", "https://a.", "https://*.10.0.0.1x:y"} {
		if _, err := ParseReferrer(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for in, want := range map[string]string{
		"https://A.example": "https://a.example", "HTTPS://a.example:443": "https://a.example", "http://a.example:80": "http://a.example",
		"http://a.example:443": "http://a.example:443", "https://*.a.example:8443": "https://*.a.example:8443",
	} {
		o, err := ParseReferrer(in)
		if err != nil || o.Canonical() != want {
			t.Errorf("%q: %q, %v", in, o.Canonical(), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{typePolicy, policyFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Decode(b); err == nil {
			if again, err := Decode(p.Encode()); err != nil || string(again.Encode()) != string(p.Encode()) {
				t.Error("a policy changes when it is written and read again")
			}
		}
	})
}

func sourcesOf(name string) []credential.Source {
	return []credential.Source{{Header: name, Name: name}}
}

// R45: an endpoint's parameter is a segment that is there.
func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		endpoint, path string
		want           bool
	}{
		{"/v1/users/{id}", "/v1/users/u1", true},
		{"/v1/users/{id}", "/v1/users/", false},
		{"/v1/users/{id}", "/v1/users", false},
		{"/v1/users/{id}/x", "/v1/users/u1/", false},
		{"/v1/users/{$}", "/v1/users/", true},
		{"/v1/users/{rest...}", "/v1/users/", true},
	} {
		e, err := ParseEndpoint(tt.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Matches(shape.GET, parsePath(t, tt.path)); got != tt.want {
			t.Errorf("%s is %s: %v", tt.path, tt.endpoint, got)
		}
	}
	for bad, mend := range map[string]string{"/v1?x=1": "a query is not compared", "GET /v1#x": "a query is not compared", "https://a/v1": "without scheme and host"} {
		if _, err := ParseEndpoint(bad); err == nil || !strings.Contains(err.Error(), mend) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"HEAD /v1/users", "FETCH /v1", "GET", "GET v1", "get /v1", "/v1/{a}/{a}"} {
		if _, err := ParseEndpoint(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// An endpoint is on a route if some request is both.
func TestReaches(t *testing.T) {
	p := &Policy{
		Name: "p", Sources: []credential.Source{{Header: "Authorization", Name: "Authorization", Scheme: "Bearer"}},
		Kinds: []Kind{{Name: "a", Prefix: "a"}, {Name: "b", Prefix: "b"}}, Environments: []string{"live"},
		Routes: []Route{
			{Name: "users", Patterns: []string{"/v1/users/{id}"}, Methods: shape.MethodSet(0).With(shape.GET), Kinds: Set(0).With(0)},
			{Name: "files", Patterns: []string{"/files/{rest...}"}, Methods: shape.AllMethods, Kinds: All(2)},
			{Name: "health", Patterns: []string{"/health"}, Methods: shape.AllMethods, Public: true, Kinds: All(2)},
		},
	}
	for i := range p.Answers {
		p.Answers[i].Status = 401
	}
	if err := p.Init(); err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string][2]bool{
		"/v1/users/{id}": {true, false}, "GET /v1/users/u1": {true, false}, "POST /v1/users/u1": {}, "/v1/users": {}, "/{rest...}": {true, true},
		"/files/a/b": {true, true}, "PUT /files/{name}": {true, true}, "/health": {}, "/v2/{rest...}": {},
	} {
		e, err := ParseEndpoint(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{p.Reaches(0, e), p.Reaches(1, e)}; got != want {
			t.Errorf("%s: %v", endpoint, got)
		}
	}
}

// A scope's parameter is one word, and a demand is met by what it accepts.
func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		declared, scope string
		ok              bool
	}{
		{"{thing}:read", "a:read", true},
		{"{thing}:read", ":read", false},
		{"{thing}:read", "a admin:write b:read", false}, // granted scopes are separated by spaces
		{"{thing}:read", "a:b:read", false},
		{"{thing}:read", "a/b:read", false},
		{"{thing}:read", "{a}b:read", false},
		{"{thing}:read", "{x}:read", true}, // a route's demand
	} {
		if _, ok := MatchScope(tt.declared, tt.scope); ok != tt.ok {
			t.Errorf("%s is %s: %v", tt.scope, tt.declared, ok)
		}
	}
	if err := (&ScopeDemand{Scope: "{a}:read", Accept: []string{"{b}:read"}}).init(); err == nil {
		t.Error("a demand with two parameters")
	}
	d := &ScopeDemand{Scope: "read", Accept: []string{"admin"}}
	if err := d.init(); err != nil {
		t.Fatal(err)
	}
	m := &Match{count: 1}
	if d.Unmet("read", m) != "read" || d.Unmet("admin", m) != "" {
		t.Error("a scope that is not accepted meets the demand")
	}
}

// R9: a reading that selects a route where the path as it is selects none for that
// method is another route's, too: methods are not all alike to upstreams.
func TestReadingsOfOtherMethods(t *testing.T) {
	get, post := shape.MethodSet(0).With(shape.GET), shape.MethodSet(0).With(shape.POST)
	p := &Policy{}
	var err error
	if p.router, err = newRouter([]Route{
		{Name: "read", Patterns: []string{"/v1/{x}"}, Methods: get, Kinds: 1},
		{Name: "run", Patterns: []string{"/v1/run"}, Methods: post, Kinds: 1},
	}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/v1/run": "read", "/v1/other": "read", "/v1/RUN": "", "/v1/run/": ""} {
		var m Match
		p.Match(parsePath(t, path), shape.GET, &m)
		got := ""
		if m.Route != nil {
			got = m.Route.Name
		}
		if got != want {
			t.Errorf("GET %s: %q, not %q", path, got, want)
		}
	}
}
