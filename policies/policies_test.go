package policies_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/keystile/keystile/internal/table"
	"github.com/keystile/keystile/policies"
)

// Every shipped table holds on core, and each of its rows can fail.
func TestConformance(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			document, err := policies.Policy(name)
			if err != nil {
				t.Fatal(err)
			}
			source, err := policies.Table(name)
			if err != nil {
				t.Fatal(err)
			}
			runTable(t, document, source)
		})
	}
}

// The worked example of the README is one that works.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(readme), "## A seventh API")
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(example, -1)
	if !ok || len(blocks) != 2 {
		t.Fatal("the example is not where it was")
	}
	runTable(t, []byte(blocks[0][1]), []byte(blocks[1][1]))
}

func runTable(t *testing.T, document, source []byte) {
	t.Helper()
	tab, err := table.Load("conformance.yaml", source)
	if err != nil {
		t.Fatal(err)
	}
	f, err := tab.Issue("policy.yaml", document)
	if err != nil {
		t.Fatal(err)
	}
	host, err := table.NewCore(f)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := table.Run(tab, f, host)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if o.Err != nil {
			t.Errorf("%s: %v", o.Name(), o.Err)
		}
	}
	for _, blind := range table.Mutate(outcomes) {
		t.Error(blind)
	}
}
