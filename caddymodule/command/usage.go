package command

import (
	"fmt"
	"slices"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keystile/keystile/internal/redact"
)

// usageStatus is the exit status of a command that was not understood, and did
// nothing.
const usageStatus = 2

// strict makes every command below cmd say so where it is not understood, and keep
// secrets to itself: in what it is given, and in what it says.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(misused)
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := noSecrets(cmd, args); err != nil {
			return misused(cmd, err)
		}
		if check == nil {
			return nil
		}
		if err := check(cmd, args); err != nil {
			return misused(cmd, fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath()))
		}
		return nil
	}
	if cmd.RunE == nil {
		cmd.RunE = unknownCommand
	} else {
		do := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := do(cmd, args); err != nil {
				return quiet{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// misused tells what is wrong with a command's words. Caddy's own command gives the
// status.
func misused(cmd *cobra.Command, err error) error {
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.PrintErrln("Error:", quiet{err})
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return usageStatus, nil })(cmd, nil)
}

// synonyms are words that people try, by the commands that they mean.
var synonyms = map[string][]string{
	"create": {"new", "add", "issue", "make", "generate"}, "list": {"ls", "all"}, "show": {"get", "info", "describe"},
	"roll": {"rotate", "reroll", "renew"}, "revoke": {"delete", "remove", "rm", "disable", "end"}, "find": {"search", "which", "whose", "lookup"},
	"build": {"rebuild", "publish", "make"}, "inspect": {"show", "info"}, "check": {"validate", "lint"}, "history": {"log", "audit"},
}

// unknownCommand is what a group of commands does by itself: nothing, and it says so.
func unknownCommand(cmd *cobra.Command, args []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if len(args) == 0 {
		return misused(cmd, fmt.Errorf("%q needs one of the commands %s", cmd.CommandPath(), strings.Join(names, ", ")))
	}
	cmd.SuggestionsMinimumDistance = 2
	likely := cmd.SuggestionsFor(args[0])
	for _, name := range names {
		if slices.Contains(synonyms[name], strings.ToLower(args[0])) {
			likely = append(likely, name)
		}
	}
	if len(likely) > 0 {
		return misused(cmd, fmt.Errorf("%q has no command %q: did you mean %q?", cmd.CommandPath(), args[0], likely[0]))
	}
	return misused(cmd, fmt.Errorf("%q has no command %q: it has %s", cmd.CommandPath(), args[0], strings.Join(names, ", ")))
}

// takesSecrets marks a command that may be given a secret in its words.
const takesSecrets = "takes secrets"

// noSecrets refuses a command line that holds a secret: the shell has kept it by now,
// and other users of the machine could see it.
func noSecrets(cmd *cobra.Command, args []string) (err error) {
	if cmd.Annotations[takesSecrets] != "" {
		return nil
	}
	look := func(what, value string) {
		switch {
		case err != nil:
		case redact.HoldsPrivateKey(value):
			err = fmt.Errorf("%s holds a private key, which is in the shell's history now: replace that key (`caddy keystile bundle rotate`), "+
				"and name the file of its verifier key instead", what)
		case redact.HoldsKey(value):
			err = fmt.Errorf("%s holds an API key, which is in the shell's history now: roll that key. Keys are named by their ID, "+
				"and `caddy keystile keys find` reads an API key from standard input and says which one it is", what)
		}
	}
	for i, a := range args {
		look(fmt.Sprintf("argument %d", i+1), a)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) { look("--"+f.Name, f.Value.String()) })
	return err
}

// quiet is an error that says no secret, whatever it came from.
type quiet struct{ error }

func (q quiet) Error() string { return redact.Text(q.error.Error()) }
func (q quiet) Unwrap() error { return q.error }
