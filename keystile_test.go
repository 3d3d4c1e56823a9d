package keystile

import (
	"debug/buildinfo"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// packages are the folders with Go files, with those that are not tests.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "var" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			out[filepath.Dir(path)] = append(out[filepath.Dir(path)], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Every package says in one place what it is for.
func TestPackageDocs(t *testing.T) {
	for dir, files := range packages(t) {
		docs := 0
		for _, f := range files {
			file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc == nil {
				continue
			}
			docs++
			want := "Package " + file.Name.Name + " "
			if file.Name.Name == "main" {
				want = "Command " + filepath.Base(dir) + " "
			}
			if !strings.HasPrefix(file.Doc.Text(), want) {
				t.Errorf("%s: its doc does not begin with %q", f, want)
			}
		}
		if docs != 1 {
			t.Errorf("%s has %d package docs", dir, docs)
		}
	}
}

// Only xcaddy imports the root package: it would bring Caddy into core.
func TestNobodyImportsTheRoot(t *testing.T) {
	for _, files := range packages(t) {
		for _, f := range files {
			file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range file.Imports {
				if i.Path.Value == `"github.com/keystile/keystile"` {
					t.Errorf("%s imports the root package", f)
				}
			}
		}
	}
}

// R67: nothing that is shipped fails open.
func TestNothingFailsOpen(t *testing.T) {
	open := regexp.MustCompile(`(?i)fail_?open\s*:|failStrategy:\s*FAIL_OPEN|failure_policy:\s*FAIL_OPEN`)
	err := filepath.WalkDir("examples", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if open.Match(b) {
			t.Errorf("%s fails open", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The binary is built with the versions that are pinned: the toolchain by the
// Makefile, Caddy by xcaddy.txt.
func TestBinary(t *testing.T) {
	info, err := buildinfo.ReadFile("bin/caddy")
	if err != nil {
		t.Fatalf("%v: make it with `make build`", err)
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(makefile), "GOTOOLCHAIN := "+info.GoVersion+"\n") {
		t.Errorf("bin/caddy was built with %s, which is not what the Makefile pins", info.GoVersion)
	}
	versions, err := os.ReadFile("xcaddy.txt")
	if err != nil {
		t.Fatal(err)
	}
	caddy, _, _ := strings.Cut(string(versions), "\n")
	linked := make(map[string]string)
	for _, dep := range info.Deps {
		linked[dep.Path] = dep.Version
	}
	if linked["github.com/caddyserver/caddy/v2"] != caddy {
		t.Errorf("bin/caddy has Caddy %s, and xcaddy.txt names %s", linked["github.com/caddyserver/caddy/v2"], caddy)
	}
	for _, module := range []string{"github.com/keystile/keystile", "github.com/dgraph-io/ristretto/v2"} {
		if linked[module] == "" {
			t.Errorf("bin/caddy has no %s", module)
		}
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	// What is tested is what is built: the libraries that decide have one version.
	for _, module := range []string{"github.com/caddyserver/caddy/v2", "github.com/dgraph-io/ristretto/v2", "github.com/golang-jwt/jwt/v5", "golang.org/x/mod", "filippo.io/edwards25519", "modernc.org/sqlite"} {
		want := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(module) + ` (\S+)`).FindSubmatch(mod)
		if want == nil || linked[module] != string(want[1]) {
			t.Errorf("bin/caddy has %s %s, and go.mod says %s", module, linked[module], slices.Concat(want...))
		}
	}
}

// Every test that SECURITY.md names is there.
func TestSecurityNamesTests(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, f := range function.FindAllSubmatch(source, -1) {
			defined[string(f[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllSubmatch(text, -1)
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
	for _, n := range named {
		if !defined[string(n[1])] {
			t.Errorf("SECURITY.md names %s, which is not there", n[1])
		}
	}
}
