package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// asStruct is a configuration as a google.protobuf.Struct.
func asStruct(t testing.TB, raw []byte) []byte {
	t.Helper()
	var s structpb.Struct
	if err := s.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	encoded, err := proto.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// Names by what they are fields of.
var (
	namesOfConfig = []string{"bundles", "other_hosts", "client_ip", "ready_path", "filter_state", "check_sni"}
	namesOfBundle = []string{
		"inline", "origins", "poll_interval", "signers", "threshold", "audience", "min_version", "min_policy_version",
		"max_age", "clock_skew", "record_cache", "node_cache", "token_cache", "tls_terminators",
	}
	namesOfOrigin = []string{"cluster", "authority", "path", "token"}
)

// R58: a field's name is taken as it is written down, and in no other way, as JSON and
// as a Struct.
func TestNamesAreExact(t *testing.T) {
	for at, tt := range map[string]struct {
		names []string
		text  string // of a configuration, with the name in question
	}{
		"the configuration": {namesOfConfig, `{"bundles": {"shop": {"inline": "x", "signers": ["x"]}}, %s: null}`},
		"a bundle":          {namesOfBundle, `{"bundles": {"shop": {"inline": "x", "signers": ["x"], %s: null}}}`},
		"an origin":         {namesOfOrigin, `{"bundles": {"shop": {"signers": ["x"], "origins": [{"cluster": "c", "authority": "a"}, {%s: null}]}}}`},
		"an only field":     {namesOfConfig[:1], `{%s: {"shop": {"inline": "x", "signers": ["x"]}}}`},
	} {
		for _, name := range tt.names {
			long := strings.NewReplacer("s", "ſ", "k", "\u212a")
			for _, other := range []string{
				strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], long.Replace(name), strings.ToUpper(long.Replace(name)),
				name + " ", " " + name, strings.ReplaceAll(name, "_", ""), strings.ReplaceAll(name, "_", "-"), name + "\x00", "",
			} {
				quoted, err := json.Marshal(other)
				if err != nil {
					t.Fatal(err)
				}
				raw := fmt.Appendf(nil, tt.text, quoted)
				if other == name {
					continue
				}
				if _, err := parseConfig(raw); err == nil || !strings.Contains(err.Error(), "unknown field") && !strings.Contains(err.Error(), "given twice") {
					t.Errorf("%q in %s: %v", other, at, err)
				}
				if _, err := parseConfig(asStruct(t, raw)); err == nil || !strings.Contains(err.Error(), "unknown field") && !strings.Contains(err.Error(), "given twice") {
					t.Errorf("%q in %s of a Struct: %v", other, at, err)
				}
			}
		}
	}
	// An escape is another spelling of JSON, not of the name.
	for _, name := range []string{"Shop", "ſhop", "SIGNERS", "inline", ""} {
		raw := fmt.Appendf(nil, `{"\u0062undles": {%q: {"inline": "x", "signers": ["x"]}, "shop": {"inline": "x", "signers": ["x"]}}}`, name)
		for _, raw := range [][]byte{raw, asStruct(t, raw)} {
			if c, err := parseConfig(raw); err != nil || c.Bundles[name] == nil || len(c.Bundles) != 2 {
				t.Errorf("the bundle %q: %v", name, err)
			}
		}
	}
}

// unknownName is a field of a configuration that it cannot have, or "".
func unknownName(v any) string {
	object, _ := v.(map[string]any)
	for name, v := range object {
		if !slices.Contains(namesOfConfig, name) {
			return name
		}
		bundles, _ := v.(map[string]any)
		for _, v := range bundles {
			b, _ := v.(map[string]any)
			for name, v := range b {
				if !slices.Contains(namesOfBundle, name) {
					return name
				}
				origins, _ := v.([]any)
				for _, o := range origins {
					o, _ := o.(map[string]any)
					for name := range o {
						if !slices.Contains(namesOfOrigin, name) {
							return name
						}
					}
				}
			}
		}
	}
	return ""
}

// checkAccepted fails for a configuration that was taken and should not have been.
func checkAccepted(t *testing.T, raw []byte, c *Config) {
	t.Helper()
	if asJSON, ok := structure(raw); ok {
		raw = asJSON
	}
	var written map[string]any
	if err := json.Unmarshal(raw, &written); err != nil {
		t.Fatalf("no JSON object was taken: %v", err)
	}
	if name := unknownName(written); name != "" {
		t.Errorf("the unknown field %q was taken", name)
	}
	if bundles, _ := written["bundles"].(map[string]any); len(c.Bundles) == 0 || len(bundles) != len(c.Bundles) {
		t.Errorf("%d bundles were taken of %d", len(c.Bundles), len(bundles))
	}
	for name, b := range c.Bundles {
		if b == nil || len(b.Signers) == 0 || (b.Inline == "") == (len(b.Origins) == 0) || b.TLSTerminators != nil {
			t.Errorf("bundle %q: %+v was taken", name, b)
		}
	}
	if c.OtherHosts != "" && c.OtherHosts != "refuse" && c.OtherHosts != "pass" || c.ClientIP != "" && c.ClientIP != "peer" && c.ClientIP != "forwarded" || c.ReadyPath != "" && c.ReadyPath[0] != '/' {
		t.Errorf("%+v was taken", c)
	}
}

// What is accepted has known names alone, a bundle, and a source and a signer for each;
// written down again it is the same; with one more name, or one name in capitals, it is
// refused.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		`{"bundles": {"shop": {"inline": "AAAA", "signers": ["x"]}}}`,
		`{"bundles": {"shop": {"inline": "AAAA", "ſigners": ["x"]}}}`,
		`{"bundles": {"shop": {"inline": "AAAA", "signers": ["x"]}, "SHOP": {"inline": "AAAA", "signers": ["x"]}}, "CHECK_SNI": true}`,
		`{"bundles": {"shop": {"origins": [{"cluster": "c", "authority": "a", "path": "/x", "token": "t"}], "signers": ["x"], "threshold": 2, "max_age": "15m", "clock_skew": 5}}, "other_hosts": "pass", "client_ip": "forwarded", "ready_path": "/r", "filter_state": true}`,
		`{"bundles": {"shop": {"origins": [{"cluster": "c"}], "threshold": 2, "x": null, "y": true}}}`,
	} {
		f.Add([]byte(seed))
		f.Add(asStruct(f, []byte(seed)))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		if err != nil {
			return
		}
		checkAccepted(t, raw, c)
		once, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseConfig(once)
		if err != nil {
			t.Fatalf("%s was taken, and is refused when it is written down again: %v", once, err)
		}
		if twice, _ := json.Marshal(again); !bytes.Equal(once, twice) {
			t.Errorf("%s became\n%s", once, twice)
		}
		for _, other := range []string{`{"x":0,`, `{"BUNDLES":{},`, `{"bundleſ":{},`} {
			if _, err := parseConfig([]byte(other + string(once[1:]))); err == nil {
				t.Errorf("%s%s was taken", other, once[1:])
			}
		}
	})
}
