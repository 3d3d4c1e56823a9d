// Command mutation removes the verifier's checks one by one and sees that a test
// notices: for the steps of a decision a row of a conformance table, for the
// rest a Go test. Nothing in the tree is changed: the compiler is given each
// file as it would be without the check.
//
//	go run ./internal/check/mutation [-run REGEXP] [-v]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// mutant is one check that is taken out.
type mutant struct {
	name     string
	file     string
	old, new string
	test     string // package whose tests must fail; with -run, those of them
}

func main() {
	only := flag.String("run", "", "only mutants whose name matches this regular expression")
	verbose := flag.Bool("v", false, "print every mutant")
	flag.Parse()
	filter, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var chosen []mutant
	for _, m := range mutants {
		if filter.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	noticed, failed := 0, 0
	for i, err := range tryAll(chosen) {
		name := chosen[i].name
		if err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", name, err)
			continue
		}
		noticed++
		if *verbose {
			fmt.Printf("ok   %s\n", name)
		}
	}
	fmt.Printf("mutation: removing a check was noticed %d times, and not %d times\n", noticed, failed)
	fmt.Printf("%d passed, %d failed\n", noticed, failed)
	if failed > 0 || noticed == 0 {
		os.Exit(1)
	}
}

// tryAll tries mutants, as many at once as there are processors, and gives what came of
// each in their order.
func tryAll(mutants []mutant) []error {
	outcomes := make([]error, len(mutants))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(mutants); i = int(next.Add(1)) - 1 {
				outcomes[i] = mutants[i].try()
			}
		})
	}
	workers.Wait()
	return outcomes
}

// slow are tests that kill processes or fill disks at every step, or that run programs
// which were built before: they are not there to notice that one check is gone, and would
// take most of the time.
const slow = "^Test(Crash|Full|Killed|ReloadUnderLoad|Canary)"

// try runs the tests without the check. They must fail, and not for want of
// compiling.
func (m *mutant) try() error {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return fmt.Errorf("%s has the check %d times: the list is out of date", m.file, n)
	}
	dir, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	changed := filepath.Join(dir, "mutant.go")
	text := strings.Replace(string(source), m.old, m.new, 1)
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}
	args := append([]string{"test", "-count=1", "-vet=off", "-failfast", "-timeout", "120s", "-skip", slow, "-overlay", list}, strings.Fields(m.test)...)
	out, err := exec.Command("go", args...).CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("no test in %s notices that the check is gone", m.test)
	case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic: "):
		return fmt.Errorf("the tests do not run:\n%s", out[:min(len(out), 1000)])
	}
	return nil
}
