// Package policies holds the policies that Keystile ships, one folder each:
// policy.yaml is what the API promises about its keys, and conformance.yaml is
// a table of requests and exact answers that shows it.
//
// [Compile] gives a policy ready to sign. README.md describes the language of
// both files.
package policies

import (
	"embed"
	"fmt"
	"slices"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
)

//go:embed */policy.yaml */conformance.yaml
var files embed.FS

// Names are the shipped policies, in byte order.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded: cannot fail
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Policy returns the document of a shipped policy.
func Policy(name string) ([]byte, error) { return read(name, "policy.yaml") }

// Table returns the conformance table of a shipped policy.
func Table(name string) ([]byte, error) { return read(name, "conformance.yaml") }

func read(name, file string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("no policy %q is shipped: use one of %q, or a file", name, Names())
	}
	return files.ReadFile(name + "/" + file)
}

// Compile compiles a shipped policy.
func Compile(name string, opts compile.Options) (*policy.Policy, error) {
	source, err := Policy(name)
	if err != nil {
		return nil, err
	}
	return compile.Compile(name+"/policy.yaml", source, opts)
}
