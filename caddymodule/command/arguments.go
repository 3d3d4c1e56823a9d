package command

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// statusUsage is the exit status of a command that was not understood and did nothing.
const statusUsage = 2

// usageError is a mistake in how a command was given.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// strict makes cmd and all commands below it end in one way: a command that does
// nothing fails, and no error holds a secret that was given.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return fail(cmd, usageError{err}) })
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
	cmd.DisableFlagsInUseLine = true // Use names those that matter
	args, run := cmd.Args, cmd.RunE
	if cmd.HasSubCommands() {
		// A word that is no command is told before a flag of the command that it
		// should have been.
		cmd.FParseErrWhitelist.UnknownFlags = true
		args, run = cobra.ArbitraryArgs, unknownCommand
		cmd.SetUsageTemplate(strings.Replace(cmd.UsageTemplate(), "{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", 1))
	}
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		err := checkGiven(cmd, given)
		if err == nil && args(cmd, given) != nil {
			what := "an argument is missing"
			if len(given) > 0 {
				what = fmt.Sprintf("the arguments %q do not fit", given)
			}
			err = usagef("nothing was done: %s: write `%s`; --help tells more", what, cmd.UseLine())
		}
		return fail(cmd, err)
	}
	cmd.RunE = func(cmd *cobra.Command, given []string) error { return fail(cmd, run(cmd, given)) }
}

// fail prints err, and returns what makes Caddy exit with its status.
func fail(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	text := redact(err.Error())
	fmt.Fprintln(cmd.ErrOrStderr(), "Error:", text)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if !errors.As(err, new(usageError)) {
		return errors.New(text)
	}
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return statusUsage, nil })(cmd, nil)
}

// unknownCommand runs where a group of commands is given none of its own.
func unknownCommand(group *cobra.Command, given []string) error {
	var names []string
	for _, c := range group.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	switch {
	case len(given) == 0:
		return usagef("nothing was done: `%s` needs one of %s; --help tells more", group.CommandPath(), strings.Join(names, ", "))
	case given[0] == "help":
		return group.Help()
	}
	meant := likely(group, given[0])
	if len(meant) == 0 {
		return usagef("nothing was done: `%s` has no command %q; it has %s", group.CommandPath(), given[0], strings.Join(names, ", "))
	}
	return usagef("nothing was done: `%s` has no command %q: did you mean `%s`? It has %s",
		group.CommandPath(), given[0], strings.Join(meant, "` or `"), strings.Join(names, ", "))
}

// likely are the commands that word may stand for: those of the group first, else
// those of any group.
func likely(group *cobra.Command, word string) []string {
	top := group
	for top.HasParent() && top.Parent().HasParent() {
		top = top.Parent()
	}
	groups := []*cobra.Command{group, top}
	for _, c := range top.Commands() {
		if c.HasSubCommands() {
			groups = append(groups, c)
		}
	}
	for _, g := range groups {
		if meant := similar(g, word); len(meant) > 0 {
			return meant
		}
	}
	return nil
}

// similar are a group's commands that go by the name word elsewhere, or else those that
// are spelled like it.
func similar(group *cobra.Command, word string) (paths []string) {
	for _, c := range group.Commands() {
		if slices.ContainsFunc(c.SuggestFor, func(s string) bool { return strings.EqualFold(s, word) }) {
			paths = append(paths, c.CommandPath())
		}
	}
	if len(paths) > 0 || word == "" {
		return paths
	}
	group.SuggestionsMinimumDistance = 2
	for _, name := range group.SuggestionsFor(word) {
		if path := group.CommandPath() + " " + name; !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// takesSecrets marks a command that may be given a secret in its words.
const takesSecrets = "takes secrets"

// checkGiven refuses what no command can want: a value that is empty, as a variable is
// that was not set, and a secret.
func checkGiven(cmd *cobra.Command, args []string) (err error) {
	refuse := refuseSecret
	if cmd.Annotations[takesSecrets] != "" {
		refuse = func(string, string) error { return nil }
		args = nil // they are those of another program
	}
	for i, a := range args {
		what := fmt.Sprintf("argument %d", i+1)
		if a == "" {
			return usagef("%s is empty", what)
		}
		if err := refuse(what, a); err != nil {
			return err
		}
		if asksForKey(cmd) && keyForm.MatchString(a) {
			return errAPIKey(what)
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil {
			err = checkFlag("--"+f.Name, f.Value, refuse)
		}
	})
	return err
}

// asksForKey says whether an argument of cmd is a key ID, or may be mistaken for one.
func asksForKey(cmd *cobra.Command) bool {
	return cmd.Name() == "find" || strings.Contains(cmd.Use, "<id>") || strings.Contains(cmd.Use, "[id]")
}

func checkFlag(name string, v pflag.Value, refuse func(what, value string) error) error {
	values := []string{v.String()}
	if list, ok := v.(pflag.SliceValue); ok {
		values = list.GetSlice()
	}
	if len(values) == 0 || slices.Contains(values, "") {
		return usagef("%s has an empty value: give one, or leave it out", name)
	}
	for _, s := range values {
		if err := refuse(name, s); err != nil {
			return err
		}
	}
	return nil
}
