package command

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Checks policies, runs their conformance tables, and signs policy notes",
	}
	cmd.AddCommand(checkCommand(), testCommand(), noteCommand(), signCommand(), keyCommand())
	return cmd
}

func compiled(name string) (*policy.Policy, error) {
	document, file, err := readPolicy(name)
	if err != nil {
		return nil, err
	}
	return compile.Compile(file, document, compile.Options{})
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "check <name|file>",
		SuggestFor: []string{"validate", "verify", "lint", "compile"},
		Short:      "Compiles a policy and says what is wrong, with line and column",
		Args:       cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := compiled(args[0])
			if err != nil {
				return err
			}
			warnOfLimits(cmd, limited(p)...)
			return output(cmd, map[string]any{
				"name": p.Name, "kinds": len(p.Kinds), "environments": len(p.Environments), "routes": len(p.Routes), "bytes": len(p.Encode()),
			}, func(w io.Writer) {
				fmt.Fprintf(w, "Policy %s is good: %d kinds, %d environments, %d routes, %d bytes compiled.\n",
					p.Name, len(p.Kinds), len(p.Environments), len(p.Routes), len(p.Encode()))
			})
		},
	}
}

func testCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "test <policy> [table]",
		SuggestFor: []string{"run", "try"},
		Short:      "Runs a conformance table against a policy",
		Long: `Runs a conformance table against a policy, with keys made for this run.

policies/README.md describes tables. A shipped policy brings its own.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			outcomes, err := runTable(args)
			if err != nil {
				return err
			}
			return report(cmd, outcomes)
		},
	}
}

// runTable runs the table that args name against their policy.
func runTable(args []string) ([]table.RowResult, error) {
	document, file, err := readPolicy(args[0])
	if err != nil {
		return nil, err
	}
	source, tableFile, err := readTable(args)
	if err != nil {
		return nil, err
	}
	t, err := table.Load(tableFile, source)
	if err != nil {
		return nil, err
	}
	f, err := t.Issue(file, document)
	if err != nil {
		return nil, err
	}
	host, err := table.NewCore(f)
	if err != nil {
		return nil, err
	}
	return table.Run(t, f, host)
}

func readTable(args []string) (source []byte, file string, err error) {
	if len(args) > 1 {
		source, err = os.ReadFile(args[1])
		return source, args[1], err
	}
	if !slices.Contains(policies.Names(), args[0]) {
		return nil, "", fmt.Errorf("policy %q is not shipped: name its table too", args[0])
	}
	source, err = policies.Table(args[0])
	return source, args[0] + "/conformance.yaml", err
}

func report(cmd *cobra.Command, outcomes []table.RowResult) error {
	type failure struct {
		Row   string `json:"row"`
		Error string `json:"error"`
	}
	failures := []failure{}
	for _, o := range outcomes {
		if o.Err != nil {
			failures = append(failures, failure{o.Exchange.Row.Name, o.Err.Error()})
		}
	}
	err := output(cmd, map[string]any{"rows": len(outcomes), "failures": failures}, func(w io.Writer) {
		for _, f := range failures {
			fmt.Fprintf(w, "FAIL %s: %s\n", f.Row, f.Error)
		}
		fmt.Fprintf(w, "%d rows, %d failed\n", len(outcomes), len(failures))
	})
	if err == nil && len(failures) > 0 {
		err = fmt.Errorf("%d of %d rows failed", len(failures), len(outcomes))
	}
	return err
}

func regexpCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "regexp <policy>",
		SuggestFor: []string{"regex", "pattern", "scan"},
		Short:      "Prints a regular expression (RE2) that finds a policy's keys, for secret scanners",
		Args:       cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := compiled(args[0])
			if err != nil {
				return err
			}
			expression := p.Grammar().Regexp()
			return output(cmd, map[string]string{"policy": p.Name, "regexp": expression}, func(w io.Writer) { fmt.Fprintln(w, expression) })
		},
	}
}
