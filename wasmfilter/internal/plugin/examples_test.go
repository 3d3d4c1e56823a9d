package plugin

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/goccy/go-yaml"
)

// The examples for Kubernetes have no name that the filter does not know.
func TestExamples(t *testing.T) {
	for file, of := range map[string]func(spec map[string]any) any{
		"istio/wasmplugin.yaml": func(spec map[string]any) any { return spec["pluginConfig"] },
		"envoy-gateway/envoyextensionpolicy.yaml": func(spec map[string]any) any {
			return spec["wasm"].([]any)[0].(map[string]any)["config"]
		},
	} {
		raw, err := os.ReadFile("../../../examples/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var resource struct {
			Spec map[string]any `yaml:"spec"`
		}
		if err := yaml.Unmarshal(raw, &resource); err != nil {
			t.Fatal(err)
		}
		config, err := json.Marshal(of(resource.Spec))
		if err != nil {
			t.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(config))
		dec.DisallowUnknownFields()
		if err := dec.Decode(new(Config)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}
