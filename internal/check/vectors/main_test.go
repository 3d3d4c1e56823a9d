package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The vectors in the tree are those that this program writes.
func TestVectorsAreUpToDate(t *testing.T) {
	all, err := vectors()
	if err != nil {
		t.Fatal(err)
	}
	dir := "../../../core/bundle/testdata/vectors"
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != len(all) {
		t.Errorf("%d files for %d vectors, %v: run `go run ./internal/check/vectors`", len(files), len(all), err)
	}
	for _, v := range all {
		got, err := os.ReadFile(filepath.Join(dir, v.name))
		if err != nil || !bytes.Equal(got, v.bytes()) {
			t.Errorf("%s differs (%v): run `go run ./internal/check/vectors`", v.name, err)
		}
	}
}

// A second reader, in another language and from FORMAT.md alone, makes the same of
// every vector.
func TestSecondReader(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is missing: install it (apt-get install python3)")
	}
	out, err := exec.Command(python, "reader.py", "../../../core/bundle/testdata/vectors").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
