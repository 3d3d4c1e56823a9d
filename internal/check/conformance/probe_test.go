package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Each difference names the probe that shows it, and each probe that ends differently
// on the two hosts is named by one.
func TestDifferencesAreProbed(t *testing.T) {
	named := make(map[string]bool)
	for _, d := range differences {
		if named[d.probe] {
			t.Errorf("%q is named twice", d.probe)
		}
		named[d.probe] = true
	}
	for _, p := range probes {
		if differ := p.caddy != nil || p.envoy != nil; differ && !named[p.name] {
			t.Errorf("no difference names the probe %q", p.name)
		} else if d := find(p.name); d != nil && !differ && d.caddy != d.envoy {
			t.Errorf("the probe %q ends alike on both hosts, and %q says it does not", p.name, d.what)
		}
		delete(named, p.name)
	}
	for name := range named {
		t.Errorf("there is no probe %q", name)
	}
}

func find(probe string) *difference {
	for i := range differences {
		if differences[i].probe == probe {
			return &differences[i]
		}
	}
	return nil
}

// SECURITY.md has the same table, with the versions that it is true of.
func TestDifferencesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "## Where the hosts differ\n")
	if !ok {
		t.Fatal("the section is missing")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var want strings.Builder
	for _, d := range differences {
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", d.what, d.caddy, d.envoy, d.probe)
	}
	if _, table, _ := strings.Cut(section, "|---|---|---|---|\n"); !strings.HasPrefix(table, want.String()) || strings.Count(table, "\n|") >= len(differences) {
		t.Errorf("the table is to be:\n%s", &want)
	}
	for _, from := range []struct{ file, before, name string }{
		{"../../../xcaddy.txt", "v", "Caddy "}, {"../../../Makefile", "GOTOOLCHAIN := go", "Go "}, {"../../../Makefile", "ENVOY_VERSION := ", "Envoy "},
	} {
		raw, err := os.ReadFile(from.file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(raw), from.before)
		if version := strings.Fields(rest)[0]; !strings.Contains(section, from.name+version) {
			t.Errorf("the table is not said to be true of %s%s", from.name, version)
		}
	}
}
