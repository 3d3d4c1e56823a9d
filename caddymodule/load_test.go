package caddymodule_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/policies"
)

// asCaddy makes the test's binary Caddy's.
const asCaddy = "KEYSTILE_TEST_AS_CADDY"

func TestMain(m *testing.M) {
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
	os.Exit(m.Run())
}

// validated runs `caddy validate` on a Caddyfile, in a process of its own, and gives its
// error and what it logs.
func validated(t *testing.T, h *home, caddyfile string) (failed bool, output string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "validate", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), asCaddy+"=1", "XDG_DATA_HOME="+h.dir, "XDG_CONFIG_HOME="+h.dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err != nil, string(out)
}

// loads validates a Caddyfile in this process, and gives what it warns of.
func loads(t *testing.T, h *home, extra, sites string, names ...string) (warnings string, err error) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	err = validate(t, h.globals(fmt.Sprintf("\tlog default {\n\t\toutput file %s\n\t\tlevel WARN\n\t}\n%s", log, extra), names...)+sites)
	b, readErr := os.ReadFile(log)
	if readErr != nil && !errors.Is(readErr, os.ErrNotExist) {
		t.Fatal(readErr)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "keystile") {
			warnings += line
		}
	}
	return warnings, err
}

// both names a host's two addresses.
func both(host, lines string) string {
	return fmt.Sprintf("http://%[1]s, https://%[1]s {\n%[2]s\n}\n", host, lines)
}

// What would be denied, or would get around keystile, is found at load. A row has what
// is refused, or else what is warned of, or nothing.
func TestFoundAtLoad(t *testing.T) {
	h := newHome(t, "vinr", "default")
	document, err := policies.Policy("default")
	if err != nil {
		t.Fatal(err)
	}
	ported := control.NewBundle{Name: "ported", Audience: bundle.DefaultAudience, Policy: document, File: "default", Hosts: map[string][]string{"": {"api.test:8443"}}}
	if _, err := h.Init(t.Context(), ported); err != nil {
		t.Fatal(err)
	}
	const (
		up     = "reverse_proxy localhost:9000"
		other  = "reverse_proxy localhost:9001"
		around = "leaves out reach localhost:9000"
		change = "changes the request before keystile sees it"
	)
	site := func(lines string) string { return both("api.vinr.com", lines) }
	for name, tt := range map[string]struct{ extra, sites, refused, warned string }{
		// hosts
		"host of the policy":            {"", site("keystile vinr\n" + up), "", ""},
		"host that is not the policy's": {"", both("api.vinr.example", "keystile vinr\n"+up), "api.vinr.com, sandbox.api.vinr.com alone", ""},
		"one host of two":               {"", "http://api.vinr.com, https://api.vinr.com, http://x.test, https://x.test {\nkeystile vinr\n}\n", "host x.test", ""},
		"any host, policy of any":       {"", both("whatever.test", "keystile default\n"+up), "", ""},
		"wildcard with one of them":     {"", both("*.vinr.com", "keystile vinr"), "", ""},
		"wildcard without any":          {"", both("*.vinr.example", "keystile vinr"), "host *.vinr.example", ""},
		"host matcher inside":           {"", both("*.vinr.com", "@a host docs.vinr.com\nhandle @a {\nkeystile vinr\n}"), "host docs.vinr.com", ""},
		"host matcher inside, served":   {"", both("*.vinr.com", "@a host api.vinr.com\nhandle @a {\nkeystile vinr\n}"), "", ""},
		"host that a placeholder gives": {"", both("*.vinr.example", "@a host {vars.host}\nhandle @a {\nkeystile vinr\n}"), "", ""},
		"port that clients name":        {"\tauto_https disable_redirects\n", "https://api.vinr.com:8443 {\nkeystile vinr\n}\n", "", "say api.vinr.com:8443"},
		"port that stands for 443":      {"\tauto_https disable_redirects\n\thttps_port 8443\n", "https://api.vinr.com:8443 {\nkeystile vinr\n}\n", "", ""},
		"port that the policy names":    {"\tauto_https disable_redirects\n", "https://api.test:8443 {\nkeystile ported\n}\n", "", ""},
		"port of the policy, mapped":    {"\thttps_port 8443\n", both("api.test", "keystile ported"), "", ""},
		"port of the policy, on 443":    {"", both("api.test", "keystile ported"), "", "clients of port 443 say api.test, which is denied with 421"},
		"port of the policy, on 9443":   {"\tauto_https disable_redirects\n", "https://api.test:9443 {\nkeystile ported\n}\n", "", "say api.test:9443"},
		"upper case":                    {"", both("API.vinr.com", "keystile vinr"), "", ""},
		"host matcher in upper case":    {"", both("x.test", "@a host X.TEST\nhandle @a {\nkeystile vinr\n}"), "host x.test", ""},
		"wildcards in upper case":       {"", both("*.VINR.com", "@a host *.ViNR.com\nhandle @a {\nkeystile vinr\n}") + both("*.Example.test", "@a host *.EXAMPLE.test\nhandle @a {\nkeystile default\n}"), "", ""},
		"wildcard matcher inside":       {"", both("x.test", "@a host *.test\nhandle @a {\nkeystile vinr\n}"), "host x.test", ""},
		"address of IPv6":               {"", both("[2001:db8::1]", "keystile vinr"), "host 2001:db8::1", ""},
		"letters of another script":     {"", both("*.test", "@a host bücher.test\nhandle @a {\nkeystile vinr\n}"), "host xn--bcher-kva.test", ""},
		"host that nothing reaches":     {"\tauto_https disable_redirects\n", "https://api.vinr.com {\n@a host x.test\nhandle @a {\nkeystile vinr\n}\n}\nhttp:// {\nredir https://{host}{uri}\n}\n", "", ""},
		"host in a named route":         {"", "&(api) {\nroute {\nkeystile vinr\n" + up + "\n}\n}\n" + both("x.test", "invoke api"), "host x.test", ""},
		"named route":                   {"", "&(api) {\nroute {\nkeystile vinr\n" + up + "\n}\n}\n" + site("invoke api"), "", ""},
		"named route, HTTPS alone":      {"", "&(api) {\nkeystile vinr\n}\nhttps://api.vinr.com {\ninvoke api\n}\n", "name the HTTP site too", ""},
		"named route in another site":   {"", "&(api) {\nkeystile vinr\n}\n&(docs) {\nrespond hi\n}\n" + site("invoke api") + "https://docs.vinr.com {\ninvoke docs\n}\n", "", ""},
		"named route that nobody uses":  {"", "&(api) {\nkeystile vinr\n}\nhttps://api.vinr.com {\nrespond hi\n}\n", "", ""},
		"named route within a route":    {"", "&(api) {\nroute {\nkeystile vinr\n" + up + "\n}\n}\n" + site("handle /v1/* {\ninvoke api\n}\nhandle {\n"+up+"\n}"), around, ""},
		"named routes in a circle":      {"", "&(a) {\ninvoke b\n}\n&(b) {\ninvoke a\nkeystile vinr\n}\n" + site("invoke a"), "", ""},
		"host of an error page's":       {"", both("x.test", "error 404\nhandle_errors {\nkeystile vinr\n}"), "host x.test", ""},

		// rewrites
		"strip_prefix":                   {"", site("keystile vinr\nuri strip_prefix /api\n" + up), change, ""},
		"rewrite of everything":          {"", site("keystile vinr\nrewrite * /v2{uri}\n" + up), change, ""},
		"uri replace":                    {"", site("keystile vinr\nuri replace /a /b\n" + up), change, ""},
		"handle_path":                    {"", site("handle_path /api/* {\nkeystile vinr\n" + up + "\n}"), change, ""},
		"handle_path, rewritten":         {"", site("handle_path /api/* {\nkeystile vinr {\nrewritten\n}\n" + up + "\n}"), "", ""},
		"strip_prefix, rewritten":        {"", site("keystile vinr {\nrewritten\n}\nuri strip_prefix /api\n" + up), "", ""},
		"strip_prefix in a route behind": {"", site("route {\nkeystile vinr\nuri strip_prefix /api\n" + up + "\n}"), "", ""},
		"strip_prefix in a route before": {"", site("route {\nuri strip_prefix /api\nkeystile vinr\n" + up + "\n}"), change, ""},
		"keystile ordered first":         {"\torder keystile first\n", site("keystile vinr\nuri strip_prefix /api\n" + up), "", ""},
		"rewrite of some":                {"", site("keystile vinr\nrewrite /old /v1/new\n" + up), "", change},
		"try_files":                      {"", site("keystile vinr\ntry_files {path} /index.html\n" + up), "", change},
		"php_fastcgi behind":             {"", site("keystile vinr\nphp_fastcgi localhost:9000"), "", ""},
		"php_fastcgi before":             {"", site("route {\nphp_fastcgi localhost:9001\nkeystile vinr\n" + up + "\n}"), "", change},
		"rewrite in another handle":      {"", site("handle_path /docs/* {\nfile_server\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"rewrite in a handle that ends":  {"", site("handle_path /docs/* {\nheader X-Y z\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"rewrite of another site":        {"", site("keystile vinr\n"+up) + both("x.test", "uri strip_prefix /a\n"+other), "", ""},
		"method":                         {"", site("keystile vinr\nmethod POST\n" + up), "", ""},
		"rewrite before a named route":   {"", "&(api) {\nkeystile vinr\n}\n" + site("uri strip_prefix /a\ninvoke api"), change, ""},
		"rewrite behind another one":     {"", site("route {\nkeystile default\nuri strip_prefix /api\nkeystile vinr\n" + up + "\n}"), change, ""},
		"strip_suffix":                   {"", site("keystile vinr\nuri strip_suffix /api\n" + up), change, ""},
		"path_regexp":                    {"", site("keystile vinr\nuri path_regexp /+ /\n" + up), change, ""},
		"query":                          {"", site("keystile vinr\nuri query -a\n" + up), change, ""},

		// ways around
		"matcher on a path":               {"", site("keystile /v1/* vinr\n" + up), around, ""},
		"partial":                         {"", site("keystile /v1/* vinr {\npartial\n}\n" + up), "", ""},
		"named matcher":                   {"", site("@api path /v1/* /v2/*\nkeystile @api vinr\n" + up), around, ""},
		"all but a path":                  {"", site("@api not path /health\nkeystile @api vinr\n" + up), around, ""},
		"by a method":                     {"", site("@api method POST\nkeystile @api vinr\n" + up), around, ""},
		"every path":                      {"", site("keystile /* vinr\n" + up), "", ""},
		"every path, as a star":           {"", site("@all path *\nkeystile @all vinr\n" + up), "", ""},
		"the rest elsewhere":              {"", site("@api path /v1/*\n@rest not path /v1/*\nkeystile @api vinr\nreverse_proxy @rest localhost:9001\nreverse_proxy @api localhost:9000"), "", ""},
		"not one and not another":         {"", site("@api path /v1/*\n@rest {\nnot path /v1/*\nnot path /v2/*\n}\nkeystile @api vinr\nrespond @rest 404\n" + up), around, ""},
		"the same matcher behind":         {"", site("@api path /v1/*\nkeystile @api vinr\nreverse_proxy @api localhost:9000\nrespond 404"), "", ""},
		"the same matcher further behind": {"", site("@api path /v1/*\nkeystile @api vinr\nrespond /x hi\nreverse_proxy @api localhost:9000"), "", ""},
		"the same matcher, and another":   {"", site("@api path /v1/*\nkeystile @api vinr\nreverse_proxy @api localhost:9000\n" + other), "", ""},
		"the same further, and another":   {"", site("@api path /v1/*\nkeystile @api vinr\nrespond /x hi\nreverse_proxy @api localhost:9000\n" + other), "", ""},
		"the rest is answered":            {"", site("@api path /v1/*\n@rest not path /v1/*\nkeystile @api vinr\nrespond @rest 404\n" + up), "", ""},
		"handle, and files":               {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\nfile_server\n}"), "", ""},
		"handle, and another upstream":    {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\n" + other + "\n}"), "", ""},
		"handle, and files before":        {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nroute /static/* {\nfile_server\n" + up + "\n}"), "", ""},
		"handle, and files that pass":     {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nroute /static/* {\nfile_server {\npass_thru\n}\n" + up + "\n}"), around, ""},
		"handle, and for a response":      {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\nreverse_proxy localhost:9001 {\n@no status 404\nhandle_response @no {\n" + up + "\n}\n}\n}"), around, ""},
		"handle, and intercept":           {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\nintercept {\n@no status 404\nhandle_response @no {\n" + up + "\n}\n}\nfile_server\n}"), around, ""},
		"handle, and a name of TCP":       {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle /health {\nreverse_proxy tcp/[::1]:9000\n}"), around, ""},
		"handle, and a port alone":        {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle /health {\nreverse_proxy :9000\n}"), around, ""},
		"matcher before what is unknown":  {"", site("route {\nkeystile /v1/* vinr\nblab\n}"), "", "come to the handler \\\"blab\\\" without an API key"},
		"handle, and the same upstream":   {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\n" + up + "\n}"), around, ""},
		"handle, and it by another name":  {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle /health {\nreverse_proxy 127.0.0.1:9000\n}"), around, ""},
		"handle, and two keystiles":       {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"handle, and basic_auth":          {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle /admin/* {\nbasic_auth {\nu $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + up + "\n}"), "", ""},
		"handle, and forward_auth":        {"", site("handle /v1/* {\nkeystile vinr\n" + up + "\n}\nhandle /admin/* {\nforward_auth localhost:9009 {\nuri /auth\n}\n" + up + "\n}"), "", ""},
		"forward_auth behind, and login":  {"", site("handle /v1/* {\nkeystile vinr\nforward_auth localhost:9009 {\nuri /auth\n}\n" + up + "\n}\nhandle /login {\nreverse_proxy localhost:9009\n}"), "", ""},
		"by the client's address":         {"", site("@out not remote_ip 10.0.0.0/8\n@o remote_ip 192.0.2.0/24\nkeystile @o vinr\n" + up), "", ""},
		"on another host":                 {"", site("keystile vinr\n"+up) + both("internal.test", up), "", ""},
		"path in the site's address":      {"", "http://api.vinr.com/v1/*, https://api.vinr.com/v1/* {\nkeystile vinr\n" + up + "\n}\nhttp://api.vinr.com, https://api.vinr.com {\n" + up + "\n}\n", around, ""},
		"path of the site, and no others": {"\tauto_https disable_redirects\n", "http://api.vinr.com/v1/*, https://api.vinr.com/v1/* {\nkeystile vinr\n" + up + "\n}\n", "", ""},
		"rewrite gets to what matches":    {"", site("route {\n@api path /v1/*\nkeystile @api vinr\nuri strip_prefix /x\nreverse_proxy @api localhost:9000\n}"), around, ""},
		"dynamic upstreams":               {"", site("handle /v1/* {\nkeystile vinr\nreverse_proxy {\ndynamic a api.internal 80\n}\n}\nhandle {\nreverse_proxy {\ndynamic a api.internal 80\n}\n}"), "leaves out reach", ""},
		"plain HTTP to the same upstream": {"", "https://api.vinr.com {\nkeystile vinr\n" + up + "\n}\nhttp://api.vinr.com {\n" + up + "\n}\n", "", "is reached without an API key at :80 too"},
		"plain HTTP to another upstream":  {"", "https://api.vinr.com {\nkeystile vinr\n" + up + "\n}\nhttp://api.vinr.com {\n" + other + "\n}\n", "", ""},
		"plain HTTP of any host":          {"\tauto_https disable_redirects\n", "https://api.vinr.com {\nkeystile vinr\n" + up + "\n}\nhttp:// {\n" + up + "\n}\n", "", ""},
		"path in one address of two": {"", "http://api.vinr.com, https://api.vinr.com, http://sandbox.api.vinr.com/v1/*, https://sandbox.api.vinr.com/v1/* {\nkeystile vinr\n" + up + "\n}\n" +
			both("sandbox.api.vinr.com", up), around, ""},

		// ways around, before
		"public route":                   {"", site("handle /public/* {\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), `[{"path":["/public/*"]}] takes before keystile reach localhost:9000`, ""},
		"public route, partial":          {"", site("handle /public/* {\n" + up + "\n}\nhandle {\nkeystile vinr {\npartial\n}\n" + up + "\n}"), "", ""},
		"public route in a named route":  {"", "&(open) {\nroute {\n" + up + "\n}\n}\n" + site("route {\ninvoke /public/* open\nkeystile vinr\n"+up+"\n}"), "takes before keystile", ""},
		"public route of another host":   {"", "http://api.vinr.com, https://api.vinr.com, http://sandbox.api.vinr.com, https://sandbox.api.vinr.com {\n@s host sandbox.api.vinr.com\nhandle @s {\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}\n}\n", "no request for host sandbox.api.vinr.com comes to keystile", ""},
		"public route by a header":       {"", site("@x header X-Test 1\nhandle @x {\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "takes before keystile", ""},
		"public route of one path":       {"", site("handle /healthz {\nrewrite * /internal/health\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"public route of a changed path": {"", site("handle_path /public/* {\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "takes before keystile", ""},
		"public route of a chosen path":  {"", site("handle /public/* {\nrewrite * /open{uri}\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "takes before keystile", ""},
		"two keystiles, opposite":        {"", site("@a path /a/*\n@b not path /a/*\nkeystile @a vinr {\nerrors pass\n}\nkeystile @b vinr\n" + up), "", ""},
		"public route of files":          {"", site("handle /public/* {\nfile_server\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"public route, another upstream": {"", site("handle /public/* {\n" + other + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"public route, by basic_auth":    {"", site("handle /admin/* {\nbasic_auth {\nu $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"public route of some addresses": {"", site("@in {\npath /metrics\nremote_ip 10.0.0.0/8\n}\nhandle @in {\n" + up + "\n}\nhandle {\nkeystile vinr\n" + up + "\n}"), "", ""},
		"public site beside every host":  {"", "http://, https:// {\ntls internal\nkeystile default\n" + up + "\n}\n" + both("www.test", up), "", ""},
		"public site below a wildcard":   {"", both("*.vinr.com", "tls internal\n@w host www.vinr.com\nhandle @w {\n"+up+"\n}\nhandle {\nkeystile vinr\n"+up+"\n}"), "", ""},
		"upstream before keystile":       {"", site("route {\n" + up + "\nkeystile vinr\n}"), "comes to keystile", ""},
		"answer before keystile":         {"", site("route {\nrespond moved 410\nkeystile vinr\n" + up + "\n}"), "", "comes to keystile"},

		// error pages
		"error page of the upstream":          {"", site("keystile vinr {\nerrors pass\n}\n" + up + "\nhandle_errors {\n" + up + "\n}"), "handle_errors sends what is denied", ""},
		"error page of the upstream, matched": {"", site("keystile vinr {\nerrors pass\n}\n" + up + "\nhandle_errors 4xx {\n" + up + "\n}"), "handle_errors sends what is denied", ""},
		"error page of the upstream, renamed": {"", site("keystile vinr {\nerrors pass\n}\n" + up + "\nhandle_errors {\nrewrite * /error.html\n" + up + "\n}"), "", ""},
		"error page of another upstream":      {"", site("keystile vinr {\nerrors pass\n}\n" + up + "\nhandle_errors {\n" + other + "\n}"), "", ""},
		"error page, answers of the policy":   {"", site("keystile vinr\n" + up + "\nhandle_errors {\n" + up + "\n}"), "", ""},
		"error page of what fails before":     {"", site("route {\nerror /internal/* 404\nkeystile vinr\n" + up + "\n}\nhandle_errors {\n" + up + "\n}"), "handle_errors sends what is denied, or has failed before keystile", ""},
		"error page of what fails behind":     {"", site("keystile vinr\nerror /internal/* 404\n" + up + "\nhandle_errors {\n" + up + "\n}"), "", ""},
		"error page of another site":          {"", site("keystile vinr {\nerrors pass\n}\n"+up) + both("x.test", other+"\nhandle_errors {\n"+up+"\n}"), "", ""},

		// plain HTTP alone
		"plain HTTP alone":                  {"", "http://api.vinr.com {\nkeystile vinr\n" + up + "\n}\n", "", "requests come by plain HTTP alone"},
		"plain HTTP alone, another is safe": {"", "http://api.vinr.com {\nkeystile vinr\n}\n" + both("sandbox.api.vinr.com", "keystile vinr"), "", "(api.vinr.com): requests come by plain HTTP alone"},
		"plain HTTP on a port, any host":    {"", ":8080 {\nkeystile default\n" + up + "\n}\n", "", "requests come by plain HTTP alone"},

		// redirects
		"every host, and HTTPS of one":   {"", "http://, https:// {\ntls internal\nkeystile default\n}\nwww.test {\nrespond hi\n}\n", "", ""},
		"every host, and two of another": {"", "http://, https:// {\ntls internal\nkeystile default\n}\n" + both("www.test", "respond hi"), "", ""},
		"every host by HTTPS alone":      {"", "https:// {\ntls internal {\non_demand\n}\nkeystile default\n}\n" + both("www.test", "respond hi"), "any host (:80) would be redirected", ""},
		"port of its own":                {"", "http://api.vinr.com:8080, https://api.vinr.com:8443 {\nkeystile vinr\n}\n", "api.vinr.com (:80) would be redirected", ""},
		"http_redirect":                  {"\tservers :443 {\n\t\tlistener_wrappers {\n\t\t\thttp_redirect\n\t\t\ttls\n\t\t}\n\t}\n", site("keystile vinr\n" + up), "listener wrapper http_redirect", ""},
		"http_redirect of another":       {"\tservers :8443 {\n\t\tlistener_wrappers {\n\t\t\thttp_redirect\n\t\t\ttls\n\t\t}\n\t}\n", site("keystile vinr\n"+up) + "https://x.test:8443 {\nrespond hi\n}\n", "", ""},
		"redirect by hand":               {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://{host}{uri} permanent\n}\n", "is redirected to https://", ""},
		"redirect by hand, by name":      {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://api.vinr.com{uri}\n}\n", "is redirected to https://", ""},
		"redirect on another port":       {"\tauto_https disable_redirects\n", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://:8080 {\nredir https://{host}{uri}\n}\n", "is redirected to https://", ""},
		"redirect before the handler":    {"", site("@http protocol http\nredir @http https://{host}{uri}\nkeystile vinr"), "is redirected to https://", ""},
		"redirect behind the handler":    {"", site("route {\nkeystile vinr\nredir https://{host}{uri}\n}"), "", ""},
		"redirect elsewhere":             {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://docs.vinr.com/keys\n}\n", "", ""},
		"redirect elsewhere, same path":  {"", site("@m header User-Agent *Mobile*\nredir @m https://m.vinr.com{uri}\nkeystile vinr"), "", ""},
		"redirect here, same path":       {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://api.vinr.com{path}\n}\n", "is redirected to https://", ""},
		"redirect of another host":       {"", site("keystile vinr") + "http://x.test {\nredir https://{host}{uri}\n}\n", "", ""},
		"redirect by hand, to a port":    {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://api.vinr.com:8443{uri}\n}\n", "is redirected to https://", ""},
		"redirect in upper case":         {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir HTTPS://API.vinr.com{uri}\n}\n", "is redirected to HTTPS://", ""},
		"redirect of HTTPS to itself":    {"\tauto_https disable_redirects\n", "https://api.vinr.com {\nredir /old https://{host}/v1/new\nkeystile vinr\n}\n", "", ""},
		"redirect to another's path":     {"", "https://api.vinr.com {\nkeystile vinr\n}\nhttp://api.vinr.com {\nredir https://docs.vinr.com{uri}\n}\n", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := loads(t, h, tt.extra, tt.sites, "vinr", "default", "ported")
			switch {
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("it is not refused for %q: %v", tt.refused, err)
			case tt.refused == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case tt.warned == "" && warnings != "" || tt.warned != "" && strings.Count(warnings, tt.warned) != 1:
				t.Errorf("it warns of\n%s\nnot of %q, once", warnings, tt.warned)
			}
		})
	}
}

// box is a handler that keeps routes in a way of its own.
type box struct {
	Inside struct {
		Routes caddyhttp.RouteList `json:"lid"`
	} `json:"inside"`
}

func init() { caddy.RegisterModule(box{}) }

// CaddyModule is Caddy's.
func (box) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.keystile_test_box", New: func() caddy.Module { return new(box) }}
}

// Provision is Caddy's.
func (b *box) Provision(ctx caddy.Context) error { return b.Inside.Routes.Provision(ctx) }

// ServeHTTP is Caddy's.
func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return b.Inside.Routes.Compile(next).ServeHTTP(w, r)
}

// The same is found in JSON, which no Caddyfile has sorted, and within handlers that
// keystile does not know.
func TestFoundInJSON(t *testing.T) {
	h := newHome(t, "vinr")
	var config map[string]map[string]any
	if err := json.Unmarshal(adapt(t, h.globals("", "vinr")), &config); err != nil {
		t.Fatal(err)
	}
	const (
		host     = `"match": [{"host": ["api.vinr.com"]}]`
		keystile = `{"handler": "keystile", "bundle": "vinr"}`
		proxy    = `{"handler": "reverse_proxy", "upstreams": [{"dial": "localhost:9000"}]}`
		strip    = `{"handler": "rewrite", "strip_path_prefix": "/x"}`
		box      = `{"handler": "keystile_test_box", "inside": {"lid": [{"handle": [%s]}]}}`
	)
	for name, tt := range map[string]struct{ listen, routes, refused string }{
		"good":                     {":80", `{` + host + `, "handle": [` + keystile + `, ` + proxy + `]}`, ""},
		"another host":             {":80", `{"match": [{"host": ["x.test"]}], "handle": [` + keystile + `]}`, "host x.test"},
		"a host or another":        {":80", `{"match": [{"host": ["api.vinr.com"]}, {"host": ["x.test"]}], "handle": [` + keystile + `]}`, "host x.test"},
		"routes, a path":           {":80", `{"match": [{"host": ["api.vinr.com"], "path": ["/v1/*"]}], "handle": [` + keystile + `]}, {"handle": [` + proxy + `]}`, "leaves out reach"},
		"routes, terminal":         {":80", `{"match": [{"host": ["api.vinr.com"], "path": ["/v1/*"]}], "handle": [` + keystile + `], "terminal": true}, {"handle": [` + proxy + `]}`, ""},
		"rewrite in a route":       {":80", `{"handle": [` + strip + `]}, {` + host + `, "handle": [` + keystile + `]}`, "changes the request"},
		"rewrite of another host":  {":80", `{"match": [{"host": ["x.test"]}], "handle": [` + strip + `]}, {` + host + `, "handle": [` + keystile + `]}`, ""},
		"in a box":                 {":80", `{` + host + `, "handle": [` + fmt.Sprintf(box, keystile) + `, ` + proxy + `]}`, ""},
		"in a box, another host":   {":80", `{"match": [{"host": ["x.test"]}], "handle": [` + fmt.Sprintf(box, keystile) + `]}`, "host x.test"},
		"in a box, HTTPS alone":    {":443", `{` + host + `, "handle": [` + fmt.Sprintf(box, keystile) + `]}`, "name the HTTP site too"},
		"a host, or a path":        {":80", `{"match": [{"host": ["x.test"]}, {"path": ["/v1/*"]}], "handle": [` + keystile + `]}`, ""},
		"a host, or everything":    {":80", `{"match": [{"host": ["x.test"]}, {}], "handle": [` + keystile + `, ` + proxy + `]}, {"handle": [` + proxy + `]}`, ""},
		"location, as it is":       {":80", `{` + host + `, "handle": [{"handler": "static_response", "status_code": 301, "headers": {"location": ["https://api.vinr.com/"]}}, ` + keystile + `]}`, "is redirected to https://"},
		"in a list in a box":       {":80", `{"match": [{"host": ["x.test"]}], "handle": [` + fmt.Sprintf(box, `{"handler": "keystile_test_box", "inside": {"lid": [{"handle": [`+keystile+`]}]}}`) + `]}`, "host x.test"},
		"in a box, after a change": {":80", `{` + host + `, "handle": [` + fmt.Sprintf(box, strip+", "+keystile) + `]}`, "changes the request"},
	} {
		config["apps"]["http"] = json.RawMessage(`{"servers": {"s": {"listen": ["` + tt.listen + `"], "routes": [` + tt.routes + `]}}}`)
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		loaded := new(caddy.Config)
		if err := caddy.StrictUnmarshalJSON(raw, loaded); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := caddy.Validate(loaded); (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// `caddy validate` says by its exit code and its output that every request would be
// denied, with the file, the host and the mend: a bundle that is missing or old may be
// replaced, and is a warning; one that is foreign is refused.
func TestValidate(t *testing.T) {
	h := newHome(t, "vinr", "default")
	b := h.bundle("vinr")
	good, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(h.bundle("default").File())
	if err != nil {
		t.Fatal(err)
	}
	old, err := policies.Compile("vinr", compile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lastWeek := time.Now().Add(-8 * 24 * time.Hour).UnixMilli()
	publisher, err := bundletest.NewPublisher(old, "vinr", bundle.DefaultAudience, lastWeek)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := publisher.Pack(lastWeek, nil)
	if err != nil {
		t.Fatal(err)
	}
	site := both("api.vinr.com", "keystile vinr\nreverse_proxy localhost:9000")
	config := h.globals("", "vinr")
	with := func(option string) string { return strings.Replace(config, "file ", option+"\n\t\t\tfile ", 1) }
	signers := strings.Replace(config, b.TrustFile(), h.bundle("default").TrustFile(), 1)
	for name, tt := range map[string]struct {
		file   []byte
		config string
		failed bool
		says   []string
	}{
		"good":             {good, config, false, nil},
		"missing":          {nil, config, false, []string{"no bundle yet", "caddy keystile bundle build", b.File()}},
		"expired":          {expired, strings.Replace(config, "signer_file "+b.TrustFile(), "signer "+publisher.Policy.Key, 1), false, []string{"the bundle has expired", "bundle renew", b.File()}},
		"too old":          {good, with("max_age 1ns"), false, []string{"older than max_age", "bundle renew", b.File()}},
		"half-written":     {good[:len(good)/2], config, false, []string{"truncated", "bundle build", b.File()}},
		"empty":            {[]byte{}, config, false, []string{"header cannot be read", "bundle build", b.File()}},
		"below the lowest": {good, with("min_version 9007199254740000"), false, []string{"older than what was accepted", b.File()}},
		"another bundle":   {foreign, config, true, []string{"none of the trusted keys", "bundle inspect", b.File()}},
		"another name":     {foreign, signers, true, []string{"it is for the bundle", b.File()}},
		"another audience": {good, with("audience east"), true, []string{"it is for the audience", b.File()}},
		"other signers":    {good, signers, true, []string{"none of the trusted keys", b.File()}},
		"too few signers":  {good, with("threshold 2"), true, []string{"are needed", b.File()}},
		"no bundle at all": {[]byte("keystile-vinr+5d1b1d6d+AUJ2\n"), config, true, []string{"does not begin like one", b.File()}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.file == nil {
				if err := os.Remove(b.File()); err != nil {
					t.Fatal(err)
				}
			} else if err := disk.ReplaceBytes(b.File(), 0o600, tt.file); err != nil {
				t.Fatal(err)
			}
			failed, output := validated(t, h, tt.config+site)
			if failed != tt.failed {
				t.Errorf("failed is %v:\n%s", failed, output)
			}
			for _, text := range tt.says {
				if !strings.Contains(output, text) {
					t.Errorf("it does not say %q:\n%s", text, output)
				}
			}
			for line := range strings.Lines(output) {
				if tt.says == nil && strings.Contains(line, "keystile\"") && !strings.Contains(line, `"level":"info"`) {
					t.Errorf("it warns: %s", line)
				}
			}
		})
	}
}

// A bundle that comes after the configuration, and does not name a site's host, is told.
func TestLaterBundleNamesNoHost(t *testing.T) {
	h := newHome(t, "vinr")
	b := h.bundle("vinr")
	good, err := os.ReadFile(b.File())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(b.File()); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	h.extra = fmt.Sprintf("\tlog default {\n\t\toutput file %s\n\t}\n", log)
	load(t, h, []string{"vinr"}, func(*server) string { return both("x.test", "keystile vinr") })
	if err := disk.ReplaceBytes(b.File(), 0o600, good); err != nil {
		t.Fatal(err)
	}
	// Once, however many bundles come: the third is in use when the second has been judged.
	for n := 1; n <= 3; n++ {
		for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			raw, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			text := string(raw)
			told := strings.Count(text, "host x.test: the policy of bundle")
			if strings.Count(text, "bundle in use") == n && told == 1 {
				break
			}
			if told > 1 || time.Since(begin) > patience {
				t.Fatalf("bundle %d: told %d times:\n%s", n, told, text)
			}
		}
		h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	}
}
