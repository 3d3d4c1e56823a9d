package command_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/caddymodule/command"
)

// commands are all commands below `caddy keystile`, and it: groups, and those that do
// something.
func commands(t *testing.T) (groups, leaves []*cobra.Command) {
	t.Helper()
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.HasSubCommands() {
			groups = append(groups, cmd)
		} else {
			leaves = append(leaves, cmd)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	for _, cmd := range command.Caddy(nil, io.Discard).Commands() {
		walk(cmd)
	}
	if len(groups) < 4 || len(leaves) < 20 {
		t.Fatalf("%d groups and %d commands", len(groups), len(leaves))
	}
	return groups, leaves
}

// path is a command's words after "caddy".
func path(cmd *cobra.Command) []string { return strings.Fields(cmd.CommandPath())[1:] }

// ran is what a run of the real binary has left.
type ran struct {
	status      int
	out, errors string
}

// caddy runs the real binary in dir.
func caddy(t *testing.T, dir, stdin string, args ...string) ran {
	t.Helper()
	cmd := exec.Command("caddy", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "KEYSTILE_HOME="+filepath.Join(dir, "home"), "HOME="+dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// A command that does nothing fails with status 2, and names the likely word.
func TestNothingDoneFails(t *testing.T) {
	groups, leaves := commands(t)
	dir := t.TempDir()
	type try struct {
		args []string
		want string
	}
	tries := []try{
		{[]string{"keystile", "keys", "delete", "key_1"}, "did you mean `caddy keystile keys revoke`?"},
		{[]string{"keystile", "keys", "revok", "key_1"}, "did you mean `caddy keystile keys revoke`?"},
		{[]string{"keystile", "keys", "rm", "--bundle", "shop", "key_1"}, "did you mean `caddy keystile keys revoke`?"},
		{[]string{"keystile", "keys", "ls"}, "did you mean `caddy keystile keys list`?"},
		{[]string{"keystile", "bundle", "rebuild"}, "did you mean `caddy keystile bundle build`?"},
		{[]string{"keystile", "revoke", "key_1"}, "did you mean `caddy keystile keys revoke`?"},
		{[]string{"keystile", "delete", "key_1"}, "did you mean `caddy keystile keys revoke`?"},
		{[]string{"keystile", "key", "list"}, "did you mean `caddy keystile keys`"},
	}
	for _, g := range groups {
		tries = append(tries,
			try{path(g), "needs one of " + g.Commands()[0].Name()},
			try{append(path(g), "--json"), "needs one of "},
			try{append(path(g), "qqqqqqqq"), `has no command "qqqqqqqq"; it has ` + g.Commands()[0].Name()},
			try{append(path(g), "qqqqqqqq", "--no-such-flag", "x"), `has no command "qqqqqqqq"`},
			try{append(path(g), "-x", "qqqqqqqq"), ""})
	}
	for _, c := range leaves {
		tries = append(tries,
			try{append(path(c), "--no-such-flag"), "unknown flag: --no-such-flag"},
			try{append(path(c), "--home", ""), "--home has an empty value"})
		if c.Name() != "explain" { // whose arguments are another program's
			tries = append(tries,
				try{append(path(c), "1", "2", "3", "4"), "do not fit: write `" + c.CommandPath()},
				try{append(path(c), ""), "argument 1 is empty"})
		}
	}
	for _, tt := range tries {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			r := caddy(t, dir, "", tt.args...)
			if r.status != 2 || r.out != "" || !strings.HasPrefix(r.errors, "Error: ") || !strings.Contains(r.errors, tt.want) || strings.Count(r.errors, "\n") != 1 {
				t.Errorf("%+v", r)
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
			t.Errorf("they have made %q: %v", left, err)
		}
	})
}

// Help is no failure, also where it is asked for by a word.
func TestHelp(t *testing.T) {
	groups, leaves := commands(t)
	for _, c := range append(groups, leaves...) {
		var out bytes.Buffer
		root := command.Caddy(nil, &out)
		root.SetArgs(append(path(c), "--help"))
		if err := root.Execute(); err != nil || !strings.Contains(out.String(), c.Short) && !strings.Contains(out.String(), strings.TrimSpace(c.Long)) {
			t.Errorf("%s: %v: %s", c.CommandPath(), err, out.String())
		}
	}
	if r := caddy(t, t.TempDir(), "", "keystile", "keys", "help"); r.status != 0 || !strings.Contains(r.out, "revoke") {
		t.Errorf("%+v", r)
	}
}

// Each word that a command goes by elsewhere leads to it, also with a capital letter.
func TestLikelyWords(t *testing.T) {
	_, leaves := commands(t)
	for _, c := range leaves {
		words := slices.Clone(c.SuggestFor)
		if len(c.Name()) > 4 {
			words = append(words, c.Name()[:len(c.Name())-1])
		}
		for _, word := range words {
			var out bytes.Buffer
			root := command.Caddy(nil, &out)
			root.SetArgs(append(path(c.Parent()), strings.ToUpper(word[:1])+word[1:]))
			if err := root.Execute(); err == nil || !strings.Contains(out.String(), "`"+c.CommandPath()+"`") {
				t.Errorf("%s %s: %v: %s", c.Parent().CommandPath(), word, err, out.String())
			}
		}
	}
}
