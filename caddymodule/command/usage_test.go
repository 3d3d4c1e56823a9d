package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keystile/keystile/core/credential"
)

// all are `caddy keystile` and every command below it, by their names.
func all() map[string][]string {
	paths := make(map[string][]string)
	var walk func(cmd *cobra.Command, path []string)
	walk = func(cmd *cobra.Command, path []string) {
		paths[strings.Join(append([]string{"keystile"}, path...), " ")] = path
		for _, sub := range cmd.Commands() {
			walk(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	walk(fresh(), nil)
	return paths
}

func fresh() *cobra.Command {
	cmd := &cobra.Command{Use: "keystile"}
	addCommands(cmd)
	return cmd
}

// give gives a command in an empty home and returns what it says.
func give(t *testing.T, in string, args ...string) (said string, err error) {
	t.Helper()
	cmd := fresh()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(append([]string{"--home", t.TempDir()}, args...))
	err = cmd.ExecuteContext(t.Context())
	if err != nil {
		out.WriteString(err.Error())
	}
	return out.String(), err
}

// R74: no command says a secret that it was given: as an argument, as a flag's value, as
// a flag's name, as a command, as a file, on standard input.
func TestCommandsKeepSecrets(t *testing.T) {
	t.Chdir(t.TempDir())
	key, err := credential.Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	for what, secret := range map[string]string{
		"API key": key.Reveal(), "private key": "PRIVATE+KEY+shop+0123abcd+AXl0aGlzIGlzIGFib3V0IHNlY3JldA==",
	} {
		body := secret[len(secret)-30:]
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, path := range all() {
			var ways [][]string
			for n := range 3 {
				ways = append(ways, append(path[:len(path):len(path)], strings.Split(strings.Repeat(secret+" ", n+1)[:(n+1)*(len(secret)+1)-1], " ")...))
			}
			cmd, _, err := fresh().Find(path)
			if err != nil {
				t.Fatal(err)
			}
			flags := func(f *pflag.Flag) {
				ways = append(ways, append(path[:len(path):len(path)], "--"+f.Name+"="+secret))
			}
			cmd.Flags().VisitAll(flags)
			cmd.InheritedFlags().VisitAll(flags)
			for _, args := range ways { // as the content of a file
				in := strings.ReplaceAll(strings.Join(args, "\n"), secret, file)
				if said, _ := give(t, secret+"\n", strings.Split(in, "\n")...); strings.Contains(said, body) {
					t.Errorf("%s says the %s that is in a file: %s", name, what, said)
				}
			}
			ways = append(ways, append(path[:len(path):len(path)], "--"+secret), append(path[:len(path):len(path)], "x", "--x="+secret))
			for _, args := range ways {
				said, err := give(t, secret+"\n", args...)
				if err == nil && cmd.Annotations[takesSecrets] == "" {
					t.Errorf("%s: %s is taken in %q", name, what, strings.ReplaceAll(strings.Join(args, " "), secret, "SECRET"))
				}
				if strings.Contains(said, body) {
					t.Errorf("%s says the %s it was given: %s", name, what, said)
				}
			}
		}
	}
}

// A command that does nothing is an error, and names the likely one.
func TestUnknownCommands(t *testing.T) {
	for name, path := range all() {
		cmd, _, err := fresh().Find(path)
		if err != nil {
			t.Fatal(err)
		}
		if !cmd.HasSubCommands() {
			continue
		}
		for _, args := range [][]string{nil, {"nonsense"}, {"nonsense", "key_x"}, {"--nonsense"}} {
			said, err := give(t, "", append(path[:len(path):len(path)], args...)...)
			if err == nil || !strings.Contains(said, "Error: ") {
				t.Errorf("%s %q: %v, %s", name, args, err, said)
			}
		}
	}
	for given, want := range map[string]string{
		"keys delete key_x": `"revoke"`, "keys revok key_x": `"revoke"`, "keys ls": `"list"`, "bundle rebuild": `"build"`, "keys rotate key_x": `"roll"`,
		"policy validate x": `"check"`, "key list": `"keys"`, "keys lst": `"list"`, "keys which": `"find"`,
	} {
		if said, err := give(t, "", strings.Fields(given)...); err == nil || !strings.Contains(said, "did you mean "+want) {
			t.Errorf("%s: %s", given, said)
		}
	}
}
