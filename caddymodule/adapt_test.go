package caddymodule_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/caddymodule"
)

var update = flag.Bool("update", false, "write the goldens anew")

// R74: a private key in a Caddyfile is told wherever it stands, and not repeated.
func TestPrivateKeyInCaddyfile(t *testing.T) {
	private, _, err := note.GenerateKey(rand.Reader, "policy")
	if err != nil {
		t.Fatal(err)
	}
	const options = "bundle shop {\nfile x\nsigner y\n}"
	for name, file := range map[string][2]string{
		"signer":      {"bundle shop {\nfile x\nsigner " + private + "\n}", "shop"},
		"signer_file": {"bundle shop {\nfile x\nsigner_file " + private + "\n}", "shop"},
		"number":      {"bundle shop {\nfile x\nthreshold " + private + "\n}", "shop"},
		"option":      {"bundle shop {\n" + private + " x\n}", "shop"},
		"bundle":      {"bundle " + private + " {\nfile x\n}", "shop"},
		"no bundle":   {private, "shop"},
		"directive":   {options, private},
		"its option":  {options, "shop {\n" + private + "\n}"},
	} {
		config := "{\nkeystile {\n" + file[0] + "\n}\n}\nhttps://a.example {\nkeystile " + file[1] + "\n}\n"
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
		if err == nil || !strings.Contains(err.Error(), "a private key, which is not shown here") || strings.Contains(err.Error(), private[len(private)-30:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each golden is a Caddyfile, a line of dashes, and the JSON that it stands for
// or a line that the error must contain.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatal("no goldens", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config, want, _ := strings.Cut(string(raw), "----------\n")
			got, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
			if want = strings.TrimSpace(want); want != "" && want[0] != '{' {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, not %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, got, "", "\t"); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(config+"----------\n"+pretty.String()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if pretty.String() != want {
				t.Errorf("%s\nnot\n%s", &pretty, want)
			}
		})
	}
}

// Every JSON field has a Caddyfile form: the golden that has everything leaves
// none at its zero value.
func TestEveryFieldHasACaddyfileForm(t *testing.T) {
	raw, err := os.ReadFile("testdata/adapt/everything.caddyfiletest")
	if err != nil {
		t.Fatal(err)
	}
	_, golden, _ := strings.Cut(string(raw), "----------\n")
	for _, typ := range []reflect.Type{reflect.TypeFor[caddymodule.Handler](), reflect.TypeFor[caddymodule.Bundle]()} {
		for i := range typ.NumField() {
			tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if tag != "" && !strings.Contains(golden, `"`+tag+`":`) {
				t.Errorf("%s.%s (%s) is in no Caddyfile", typ.Name(), typ.Field(i).Name, tag)
			}
		}
	}
	// And the handler stands before basic_auth.
	if at := []int{strings.Index(golden, `"handler": "keystile"`), strings.Index(golden, `"handler": "authentication"`)}; at[0] < 0 || !slices.IsSorted(at) {
		t.Error("the directive is not ordered before basic_auth")
	}
}
