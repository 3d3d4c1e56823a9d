package examples

import (
	"context"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/keystile/keystile/caddymodule"
	"github.com/keystile/keystile/caddymodule/control"
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
	for name, from := range map[string]string{
		"shop": "default", "vinr": "vinr", "vesuviopay": "vesuviopay", "vinfer": "vinfer", "enterprise": "enterprise", "example": "example",
	} {
		document, err := policies.Policy(from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Init(context.Background(), control.NewBundle{Name: name, Audience: caddymodule.DefaultAudience, Policy: document, File: from}); err != nil {
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
