package examples

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	_ "github.com/keystile/keystile/caddymodule" // what the Caddyfiles name
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies"
)

func TestCaddyfiles(t *testing.T) {
	home := t.TempDir()
	t.Setenv("KEYSTILE_HOME", home)
	t.Setenv("XDG_DATA_HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	h, err := control.Open(home)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for name, b := range map[string]struct {
		from  string
		hosts map[string][]string // as in the demo
	}{
		"shop":       {"default", map[string][]string{"": {"api.example.com"}}},
		"vinr":       {"vinr", map[string][]string{"live": {"api.vinr.localhost"}, "test": {"sandbox.api.vinr.localhost"}}},
		"vesuviopay": {"vesuviopay", map[string][]string{"": {"api.vesuviopay.localhost"}}},
		"vinfer":     {"vinfer", map[string][]string{"": {"api.vinfer.localhost"}}},
		"enterprise": {"enterprise", map[string][]string{"live": {"api.enterprise.localhost"}, "test": {"sandbox.enterprise.localhost"}}},
		"example":    {"example", map[string][]string{"": {"api.example.localhost"}}},
	} {
		document, err := policies.Policy(b.from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Init(context.Background(), control.NewBundle{Name: name, Audience: bundle.DefaultAudience, Policy: document, File: b.from, Hosts: b.hosts}); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"caddy/Caddyfile", "../Caddyfile"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(source, map[string]any{"filename": file})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, w := range warnings {
			t.Errorf("%s: %s", file, w)
		}
		config := new(caddy.Config)
		if err := caddy.StrictUnmarshalJSON(adapted, config); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := caddy.Validate(config); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// The resources for Kubernetes are as their published schemas say: those of Istio 1.29
// and Envoy Gateway 1.7, without their descriptions. The filter's own tests read the
// configuration in them.
func TestKubernetes(t *testing.T) {
	for file, name := range map[string]string{"istio/wasmplugin.yaml": "wasmplugin", "envoy-gateway/envoyextensionpolicy.yaml": "envoyextensionpolicy"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := yaml.YAMLToJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		resource, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		schema, err := jsonschema.NewCompiler().Compile("testdata/" + name + ".schema.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(resource); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		resource.(map[string]any)["spec"].(map[string]any)["unknown"] = true
		if schema.Validate(resource) == nil {
			t.Errorf("%s: the schema lets anything pass", file)
		}
	}
}

// The listeners for plain HTTP of Envoy and of Istio have the settings that the tests
// of the filter show to be needed.
func TestPlainListeners(t *testing.T) {
	needed := managers(t, envoy.Listener("", "127.0.0.1:0", "", nil, nil, nil))[0]
	for file, at := range map[string]int{"envoy/envoy.yaml": 1, "istio/envoyfilter.yaml": 0} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var config any
		if err := yaml.Unmarshal(raw, &config); err != nil {
			t.Fatal(err)
		}
		all := managers(t, config)
		for _, name := range []string{"common_http_protocol_options", "http_protocol_options", "upgrade_configs", "proxy_100_continue"} {
			if got := all[at][name]; !reflect.DeepEqual(got, needed[name]) {
				t.Errorf("%s: %s is %v, not %v", file, name, got, needed[name])
			}
		}
		if limit := all[1-at]["common_http_protocol_options"].(map[string]any)["max_stream_duration"]; limit != "900s" {
			t.Errorf("%s: what is under way by HTTPS ends after %v", file, limit)
		}
	}
}

// managers are the connection managers in a configuration, in order.
func managers(t *testing.T, config any) (all []map[string]any) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if name, _ := v["@type"].(string); strings.HasSuffix(name, ".HttpConnectionManager") {
				all = append(all, v)
				return
			}
			for _, name := range slices.Sorted(maps.Keys(v)) {
				walk(v[name])
			}
		}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	walk(v)
	return all
}

// What the example lets the filter do is what it can do: no call more, none less but
// those that open files, which Go's runtime has and never makes.
func TestCapabilities(t *testing.T) {
	raw, err := os.ReadFile("envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(raw), "allowed_capabilities:\n")
	var allowed []string
	for _, l := range regexp.MustCompile(`(?m)^ +(\w+): \{\}$`).FindAllStringSubmatch(list, -1) {
		allowed = append(allowed, l[1])
	}
	module, err := os.ReadFile("../bin/keystile.wasm")
	if err != nil {
		t.Fatalf("%v: make it with `make wasm`", err)
	}
	names := surface(t, module)
	able := make(map[string]bool)
	for _, name := range regexp.MustCompile(`\bproxy_[a-z0-9_]+`).FindAll(names, -1) {
		able[string(name)] = true
	}
	for _, m := range regexp.MustCompile(`(?s)wasi_snapshot_preview1.([a-z_]+)`).FindAllSubmatch(names, -1) {
		able[string(m[1])] = true
	}
	for _, name := range []string{
		"proxy_abi_version_0_2_0", "proxy_on_memory_allocate", // no calls
		"fd_close", "fd_pread", "fd_read", "path_filestat_get", "path_open", // of files
	} {
		delete(able, name)
	}
	slices.Sort(allowed)
	if want := slices.Sorted(maps.Keys(able)); !slices.Equal(allowed, want) {
		t.Errorf("allowed\n%q\nand the filter has\n%q", allowed, want)
	}
}

// surface is a WASM module's import and export sections, names and all.
func surface(t *testing.T, module []byte) (out []byte) {
	t.Helper()
	for rest := module[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			t.Fatal("no WASM module")
		}
		if rest[0] == 2 || rest[0] == 7 {
			out = append(out, rest[1+n:1+n+int(size)]...)
		}
		rest = rest[1+n+int(size):]
	}
	return out
}

// R74: no access log of the examples shows what may hold a key: a header of the request
// or its path, which is in Envoy's default format too.
func TestAccessLogs(t *testing.T) {
	shows := regexp.MustCompile(`%(REQ|PATH|QUERY|TRAILER|DYNAMIC_METADATA)\b`)
	logs := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if found := shows.Find(raw); found != nil {
			t.Errorf("%s logs %s", path, found)
		}
		defined := strings.Count(string(raw), "extensions.access_loggers")
		logs += defined
		if defined != strings.Count(string(raw), "log_format:") {
			t.Errorf("%s has a log in Envoy's default format", path)
		}
		return err
	})
	if err != nil || logs == 0 {
		t.Error(logs, "access logs", err)
	}
}
