// Package command is `caddy keystile`: making bundles, keys and customer tokens,
// and checking policies, from the command line.
//
// Output is for people; with --json it is one JSON value for programs. An API
// key is printed once, when it is made. A command that was not understood does nothing
// and has the exit status 2; any other failure has 1.
package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/control/store"
	"github.com/keystile/keystile/internal/duration"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "keystile",
		Short: "Makes API keys, signed bundles and policies",
		Long: `Makes API keys and the signed bundles that edges verify them with.

A home folder (--home) keeps the key store and one folder for each bundle, with
its policy, its signing keys and the packed file that edges read. Every command
that changes keys builds and signs the bundle; a running edge takes it over
within a second.`,
		CobraFunc: assemble,
	})
}

// assemble makes cmd `caddy keystile`.
func assemble(cmd *cobra.Command) {
	cmd.PersistentFlags().String("home", defaultHome(), "Folder of the key store and the bundles; $KEYSTILE_HOME sets the default")
	cmd.PersistentFlags().Bool("json", false, "Print JSON")
	cmd.AddCommand(initCommand(), keysCommand(), bundleCommand(), policyCommand(), tokenCommand(), regexpCommand(), explainCommand())
	strict(cmd)
}

func defaultHome() string {
	if dir := os.Getenv("KEYSTILE_HOME"); dir != "" {
		return dir
	}
	return "keystile"
}

// withHome runs do with the opened home.
func withHome(do func(cmd *cobra.Command, args []string, h *control.Home) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		dir, err := cmd.Flags().GetString("home")
		if err != nil {
			return err
		}
		h, err := control.Open(dir)
		if err != nil {
			return err
		}
		defer h.Close()
		cmd.SetContext(store.WithActor(cmd.Context(), operator()))
		return do(cmd, args, h)
	}
}

// withBundle runs do with the bundle of --bundle, or the only one.
func withBundle(do func(cmd *cobra.Command, args []string, b *control.Bundle) error) func(*cobra.Command, []string) error {
	return withOpenedBundle((*control.Home).Bundle, do)
}

// withoutPolicy is withBundle for what does not need the policy.
func withoutPolicy(do func(cmd *cobra.Command, args []string, b *control.Bundle) error) func(*cobra.Command, []string) error {
	return withOpenedBundle((*control.Home).OpenWithoutPolicy, do)
}

func withOpenedBundle(open func(*control.Home, string) (*control.Bundle, error), do func(cmd *cobra.Command, args []string, b *control.Bundle) error) func(*cobra.Command, []string) error {
	return withHome(func(cmd *cobra.Command, args []string, h *control.Home) error {
		name, err := cmd.Flags().GetString("bundle")
		if err != nil {
			return err
		}
		b, err := open(h, name)
		if err != nil {
			return err
		}
		return do(cmd, args, b)
	})
}

func bundleFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringP("bundle", "b", "", "Name of the bundle; not needed where there is only one")
	return cmd
}

// length is a flag's length of time; 90d is one.
type length time.Duration

func (l *length) String() string { return time.Duration(*l).String() }
func (*length) Type() string     { return "time" }

func (l *length) Set(s string) error {
	d, err := duration.Parse(s)
	*l = length(d)
	return err
}

func lengthFlag(cmd *cobra.Command, name string, value time.Duration, usage string) {
	l := length(value)
	cmd.Flags().Var(&l, name, usage)
}

// readLength reads a flag that [lengthFlag] made.
func readLength(cmd *cobra.Command, name string) (time.Duration, error) {
	l, ok := cmd.Flags().Lookup(name).Value.(*length)
	if !ok {
		return 0, fmt.Errorf("--%s is no length of time", name) // a programming error
	}
	return time.Duration(*l), nil
}

// output prints value as JSON if that was asked for, else what people prints.
func output(cmd *cobra.Command, value any, people func(w io.Writer)) error {
	w := cmd.OutOrStdout()
	asJSON, err := cmd.Flags().GetBool("json")
	if err != nil {
		return err
	}
	if !asJSON {
		people(w)
		return nil
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(value)
}

// progress runs do and says on standard error that it is at work once that
// takes more than a second.
func progress(cmd *cobra.Command, what string, do func() error) error {
	done := make(chan error, 1)
	begin := time.Now()
	go func() { done <- do() }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	shown := false
	for {
		select {
		case err := <-done:
			if shown {
				fmt.Fprintf(cmd.ErrOrStderr(), "\r%s: done in %s\n", what, time.Since(begin).Round(time.Second/10))
			}
			return err
		case <-ticker.C:
			shown = true
			fmt.Fprintf(cmd.ErrOrStderr(), "\r%s: %s …", what, time.Since(begin).Round(time.Second))
		}
	}
}
