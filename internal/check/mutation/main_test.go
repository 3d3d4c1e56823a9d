package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each check of the list is in its file, once, so that a change of the verifier shows
// at once what has to be listed anew.
func TestListIsUpToDate(t *testing.T) {
	names := make(map[string]bool)
	for _, m := range mutants {
		source, err := os.ReadFile(filepath.Join("../../..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
			continue
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("%s: %s has the check %d times", m.name, m.file, n)
		}
		if names[m.name] {
			t.Errorf("%s is listed twice", m.name)
		}
		names[m.name] = true
	}
}
