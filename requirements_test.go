package keystile

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var cited = regexp.MustCompile(`\bR([1-9][0-9]?)(?:[–-]R?([1-9][0-9]?))?\b`)

// citations are the requirements that a text names.
func citations(text string) (all []int) {
	for _, m := range cited.FindAllStringSubmatch(text, -1) {
		from, _ := strconv.Atoi(m[1])
		to := from
		if m[2] != "" {
			to, _ = strconv.Atoi(m[2])
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	return all
}

// Every requirement that code names is in docs/requirements.md, and every one there is
// named by a test, a table or a probe, or says why not.
func TestRequirements(t *testing.T) {
	text, err := os.ReadFile("docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	defined := make(map[int]string)
	for _, m := range regexp.MustCompile(`(?m)^- \*\*R(\d+)\*\* (.*)$`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[1])
		if defined[n] != "" {
			t.Errorf("R%d is there twice", n)
		}
		defined[n] = m[2]
	}
	shown := make(map[int]bool)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "var") {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		isTest := strings.HasSuffix(path, "_test.go") || d.Name() == "conformance.yaml" || strings.HasPrefix(path, filepath.Join("internal", "check"))
		if ext := filepath.Ext(path); ext != ".go" && ext != ".yaml" {
			return nil
		}
		source, err := os.ReadFile(path)
		for _, n := range citations(string(source)) {
			if defined[n] == "" {
				t.Errorf("%s names R%d, which docs/requirements.md does not define", path, n)
			}
			shown[n] = shown[n] || isTest
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 84; n++ {
		excused := strings.Contains(defined[n], "**Not shown:**")
		switch {
		case defined[n] == "":
			t.Errorf("R%d is not defined", n)
		case !shown[n] && !excused:
			t.Errorf("R%d is named by no test, and does not say why not", n)
		case shown[n] && excused:
			t.Errorf("R%d is named by a test, and says that it is not shown", n)
		}
	}
	if len(defined) != 84 {
		t.Errorf("%d requirements", len(defined))
	}
}

// What builds an edge alone (`xcaddy build --with …/caddymodule`) links no database of
// keys, no policy compiler and no control plane.
func TestEdgeOnly(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "./caddymodule").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if len(linked) < 100 {
		t.Fatalf("%d packages", len(linked))
	}
	for _, p := range linked {
		for _, not := range []string{"sqlite", "go-yaml", "keystile/core/policy/compile", "keystile/internal/control", "keystile/caddymodule/command"} {
			if strings.Contains(p, not) {
				t.Errorf("caddymodule links %s", p)
			}
		}
	}
}

// R27: the filter reads a request's headers in the one way that shows every line.
func TestOneWayToReadHeaders(t *testing.T) {
	for dir, files := range packages(t) {
		if !strings.HasPrefix(dir, "wasmfilter") {
			continue
		}
		for _, path := range files {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if m := regexp.MustCompile(`GetHttpRequestHeader\(|GetHttpRequestTrailer\(|"request", "headers"`).Find(source); m != nil {
				t.Errorf("%s reads headers by %s", path, m)
			}
		}
	}
}
