// Command conformance runs conformance tables against a host.
//
//	go run ./internal/check/conformance -host core|caddy|envoy|all [-policy NAME|FILE] [TABLE.yaml]
//
// Without a policy it runs all shipped ones; a shipped policy brings its own
// table. Keys and signers are made for each run, and the host gets nothing but
// the signed bundle and the trusted keys. It exits with 1 if a row is not as the
// table says, and with 1 if nothing ran.
//
// -probes sends requests byte by byte through Caddy and Envoy, for every shipped policy,
// with a good key and without; each says what has to become of it.
//
// -mutate also checks that each row would fail with another status, reason or
// body byte, and -coverage (on core) that the tables reach all of their policy.
package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

func main() {
	host := flag.String("host", "core", "host: core, caddy or envoy; all compares their answers with each other")
	policyName := flag.String("policy", "", "shipped policy or file; all shipped ones if empty")
	mutate := flag.Bool("mutate", false, "check that every row can fail")
	coverage := flag.Bool("coverage", false, "list what of the policy no row reaches (core)")
	workers := flag.Int("workers", 1, "worker threads (envoy)")
	overHTTP := flag.Bool("origin", false, "give the bundle by an HTTP origin, not in the configuration (envoy)")
	probing := flag.Bool("probes", false, "send requests that no client would through Caddy and Envoy; each has to become what it says")
	verbose := flag.Bool("v", false, "print every row")
	flag.Parse()
	if *probing {
		passed, failed, err := runProbes(*policyName, *verbose)
		if err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
		}
		fmt.Printf("%d passed, %d failed\n", passed, failed)
		if err != nil || failed > 0 || passed == 0 {
			os.Exit(1)
		}
		return
	}
	names := []string{*policyName}
	if *policyName == "" {
		names = policies.Names()
	}
	passed, failed := 0, 0
	for _, name := range names {
		r := run{host: *host, workers: *workers, overHTTP: *overHTTP, mutate: *mutate, coverage: *coverage, verbose: *verbose}
		if err := r.do(name, flag.Arg(0)); err != nil {
			fmt.Printf("FAIL %s on %s: %v\n", name, *host, err)
			failed++
		}
		passed, failed = passed+r.passed, failed+r.failed
		fmt.Printf("%s on %s: %d rows passed, %d failed\n", name, *host, r.passed, r.failed)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

type run struct {
	host                      string
	workers                   int
	overHTTP                  bool
	mutate, coverage, verbose bool
	passed, failed            int
}

func (r *run) do(name, tableFile string) error {
	document, err := read(name, "", policies.Policy)
	if err != nil {
		return err
	}
	source, err := read(name, tableFile, policies.Table)
	if err != nil {
		return err
	}
	if tableFile == "" {
		tableFile = name + "/conformance.yaml"
	}
	t, err := table.Load(tableFile, source)
	if err != nil {
		return err
	}
	f, err := t.Issue(name, document)
	if err != nil {
		return err
	}
	if r.host == "all" {
		return r.compare(t, f)
	}
	outcomes, err := r.on(r.host, t, f)
	if err != nil {
		return err
	}
	r.report(f, outcomes)
	return nil
}

// on runs a table on a host.
func (r *run) on(host string, t *table.Table, f *table.Fixture) ([]table.RowResult, error) {
	var h table.Host
	var close func() error
	switch host {
	case "core":
		c, err := table.NewCore(f)
		if err != nil {
			return nil, err
		}
		h, close = c, func() error { return nil }
	case "caddy":
		s, err := startCaddy(f)
		if err != nil {
			return nil, startFailed(s, err)
		}
		h, close = s, s.Close
	case "envoy":
		s, err := startEnvoy(f, r.workers, r.overHTTP)
		if err != nil {
			return nil, startFailed(s, err)
		}
		h, close = s, s.Close
	default:
		return nil, fmt.Errorf("host %q: use core, caddy, envoy or all", host)
	}
	outcomes, err := table.Run(t, f, h)
	return outcomes, errors.Join(err, close())
}

// compare runs a table on all hosts, with the same keys, and compares their answers (R60)
// with each other.
func (r *run) compare(t *table.Table, f *table.Fixture) error {
	answers := make(map[string]map[string]string) // row → answer → host
	for _, host := range []string{"core", "caddy", "envoy"} {
		outcomes, err := r.on(host, t, f)
		if err != nil {
			return err
		}
		for _, o := range outcomes {
			if o.Exchange.Own || o.Exchange.Want.Parser || o.Result.Refused {
				continue
			}
			if answers[o.Exchange.Row.Name] == nil {
				answers[o.Exchange.Row.Name] = make(map[string]string)
			}
			answers[o.Exchange.Row.Name][o.Answer()] = fmt.Sprintf("%s, HTTP/%d", host, o.Exchange.Version)
		}
	}
	for _, row := range slices.Sorted(maps.Keys(answers)) {
		if len(answers[row]) == 1 {
			r.passed++
			continue
		}
		r.failed++
		fmt.Printf("FAIL %s: the hosts answer differently\n", row)
		for answer, host := range answers[row] {
			fmt.Printf("  %s: %s\n", host, answer)
		}
	}
	return nil
}

// startFailed closes a server that did not start.
func startFailed(s *server, err error) error {
	if s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (r *run) report(f *table.Fixture, outcomes []table.RowResult) {
	for _, o := range outcomes {
		if o.Err != nil {
			r.failed++
			fmt.Printf("FAIL %s: %v\n", o.Name(), o.Err)
			continue
		}
		r.passed++
		if r.verbose {
			fmt.Printf("ok   %s\n", o.Name())
		}
	}
	if r.mutate {
		for _, blind := range table.Mutate(outcomes) {
			r.failed++
			fmt.Printf("FAIL %s\n", blind)
		}
	}
	if r.coverage && r.host == "core" {
		for _, missing := range table.Coverage(f.Policy, outcomes) {
			r.failed++
			fmt.Printf("FAIL no row reaches %s\n", missing)
		}
	}
}

// read reads a file, or what is shipped under a name.
func read(name, file string, shipped func(string) ([]byte, error)) ([]byte, error) {
	if file != "" {
		return os.ReadFile(file)
	}
	if slices.Contains(policies.Names(), name) {
		return shipped(name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%q is neither shipped (%q) nor a file: %w", name, policies.Names(), err)
	}
	return b, nil
}
