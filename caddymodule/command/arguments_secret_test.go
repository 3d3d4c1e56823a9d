package command_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/caddymodule/command"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control"
)

// canaries are secrets that commands are given and must not repeat, in any spelling.
type canaries struct {
	dir     string
	id      string            // of the key
	secrets map[string]string // by what they are
	files   map[string]string // with a secret in each
}

// newCanaries makes a home with a bundle and a key in a new folder.
func newCanaries(t *testing.T) *canaries {
	t.Helper()
	dir := t.TempDir()
	keystile(t, dir, 0, "init", "example")
	h, b := opened(t, dir)
	defer h.Close()
	k, secret, err := b.Keyring().Create(t.Context(), control.NewKey{Kind: "secret", Environment: "live"})
	if err != nil {
		t.Fatal(err)
	}
	private, _, err := note.GenerateKey(rand.Reader, "canary")
	if err != nil {
		t.Fatal(err)
	}
	key := secret.Reveal()
	mistyped := key[:len(key)-1] + "0"
	if mistyped == key {
		mistyped = key[:len(key)-1] + "1"
	}
	c := &canaries{
		dir: dir, id: k.ID, files: make(map[string]string),
		secrets: map[string]string{
			"key": key, "mistyped key": mistyped, "header": "Authorization: Bearer " + key,
			"private key": private, "private key without its head": strings.TrimPrefix(private, "PRIVATE+KEY+"),
			"private key without its end": private[:len(private)-3],
		},
	}
	for what, text := range map[string]string{
		"private key": private + "\n", "key": key + "\n", "name": "name: " + key + "\n", "signer in JSON": `{"keys":["` + private + `"]}`,
		"note": "keystile policy note v1\nname " + private + "\n\n" + private + "\n",
	} {
		path := filepath.Join(dir, strings.ReplaceAll(what, " ", "-")+".given")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.files[what] = path
	}
	return c
}

// spellings are the parts of a secret that must not be repeated: what is random in it.
func spellings(secret string) (out []string) {
	tail := secret[len(secret)-30:]
	for _, s := range []string{tail[:len(tail)-8], tail[8:]} {
		out = append(out, s, url.QueryEscape(s), hex.EncodeToString([]byte(s)))
	}
	whole := []byte(secret)
	for shift := range 3 { // base64 of it, wherever it begins
		out = append(out, base64.RawStdEncoding.EncodeToString(whole[shift : shift+(len(whole)-shift)/3*3])[4:])
	}
	return out
}

func (c *canaries) look(t *testing.T, where, text string) {
	t.Helper()
	for what, secret := range c.secrets {
		for _, s := range spellings(secret) {
			if strings.Contains(text, s) {
				t.Errorf("%s repeats the %s: %s", where, what, text)
			}
		}
	}
}

// lookAtFiles looks at the names of all files, and into those that were not given.
func (c *canaries) lookAtFiles(t *testing.T) {
	t.Helper()
	files := 0
	if err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		c.look(t, "the name of a file", path)
		if !d.Type().IsRegular() || filepath.Ext(path) == ".given" {
			return nil
		}
		files++
		raw, err := os.ReadFile(path)
		c.look(t, path, string(raw))
		return err
	}); err != nil || files < 5 {
		t.Errorf("%d files: %v", files, err)
	}
}

// flagsOf are the flags of cmd that have a value.
func flagsOf(cmd *cobra.Command) (names []string) {
	add := func(f *pflag.Flag) {
		if f.Value.Type() != "bool" && f.Name != "help" {
			names = append(names, f.Name)
		}
	}
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return names
}

// R74: no command repeats a secret that it is given, as an argument, as a flag, in a
// file or on standard input, and none keeps it. The commands and flags are those that
// there are: a new one is looked at too.
func TestNoSecretIsRepeated(t *testing.T) {
	c := newCanaries(t)
	_, leaves := commands(t)
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chdir(c.dir); err != nil {
		t.Fatal(err)
	}
	defer os.Chdir(working)
	t.Setenv("KEYSTILE_HOME", filepath.Join(c.dir, "home"))
	runs := 0
	run := func(stdin string, refused bool, args ...string) {
		t.Helper()
		runs++
		var out bytes.Buffer
		root := command.Caddy(strings.NewReader(stdin), &out)
		root.SetArgs(args)
		err := root.Execute()
		c.look(t, strings.Join(args[:2], " "), out.String())
		if err != nil {
			c.look(t, strings.Join(args[:2], " "), err.Error())
		}
		if refused && (err == nil || !strings.Contains(out.String(), "is not shown here")) {
			t.Errorf("%q is taken: %v: %s", args, err, out.String())
		}
	}
	for _, cmd := range leaves {
		name := path(cmd)
		name = name[:len(name):len(name)]
		for what, secret := range c.secrets {
			sure := what != "mistyped key" && cmd.Name() != "explain" // which is given requests
			run("", sure, append(name, secret)...)
			run("", sure, append(name, "x", secret)...)
			run("", false, append(name[:len(name)-1:len(name)-1], secret)...) // as a command
			run("", false, append(name, "--"+secret)...)                      // as a flag's name
			run(secret, false, name...)
			for _, f := range flagsOf(cmd) {
				run("", sure && isText(cmd, f), append(name, "--"+f, secret)...)
				run("", sure && isText(cmd, f), append(name, "--"+f+"=name="+secret)...)
			}
		}
		for _, file := range c.files {
			run("", false, append(name, file)...)
			run("", false, append(name, "example", file)...)
			run("", false, append(name, file, file)...)
			for _, f := range flagsOf(cmd) {
				for _, value := range []string{file, "customers=" + file} {
					run("", false, append(name, "--"+f, value)...)
					run("", false, append(name, file, "--"+f, value)...)
					run("", false, append(name, c.id, "--"+f, value)...)
				}
			}
		}
	}
	if runs < 1000 {
		t.Errorf("%d runs", runs)
	}
	c.lookAtFiles(t)
}

// isText says whether a flag takes any text; others refuse all but a number.
func isText(cmd *cobra.Command, flag string) bool {
	f := cmd.Flag(flag)
	return strings.HasPrefix(f.Value.Type(), "string")
}

// The same on the real binary, with an argument for each command.
func TestNoSecretIsRepeatedByTheBinary(t *testing.T) {
	c := newCanaries(t)
	_, leaves := commands(t)
	for _, cmd := range leaves {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{{c.secrets["key"]}, {c.secrets["private key"]}, {"--bundle", c.secrets["mistyped key"]}, {c.files["private key"]}} {
				r := caddy(t, c.dir, "", append(path(cmd), args...)...)
				c.look(t, cmd.CommandPath(), r.out+r.errors)
				if r.status == 0 {
					t.Errorf("%s %q: %+v", cmd.CommandPath(), args, r)
				}
			}
		})
	}
	t.Cleanup(func() { c.lookAtFiles(t) })
}

// An API key on standard input is found by its digest, in all bundles of the home.
func TestFind(t *testing.T) {
	c := newCanaries(t)
	keystile(t, c.dir, 0, "init", "default")
	key := c.secrets["key"]
	for name, tt := range map[string]struct {
		stdin  string
		args   []string
		status int
		want   []string
	}{
		"found":                   {key + "\n", nil, 0, []string{"A key of bundle example", c.id, "active"}},
		"found without a line":    {"  " + key, []string{"--bundle", "example"}, 0, []string{c.id}},
		"as JSON":                 {key, []string{"--json"}, 0, []string{`"bundle": "example"`, `"status": "active"`, `"id": "` + c.id}},
		"not in that bundle":      {key, []string{"-b", "default"}, 1, []string{"no such key", "default"}},
		"mistyped":                {c.secrets["mistyped key"], nil, 1, []string{"no such key", "example", "checksum does not fit"}},
		"with a header":           {"Bearer " + key, nil, 2, []string{"more than an API key"}},
		"two":                     {key + "\n" + key, nil, 2, []string{"more than an API key"}},
		"nothing":                 {" \n", nil, 2, []string{"standard input is empty"}},
		"too much":                {strings.Repeat("k", 1<<20), nil, 2, []string{"more than an API key"}},
		"private key":             {c.secrets["private key"], nil, 1, []string{"no such key"}},
		"key as an argument":      {"", []string{key}, 2, []string{"is an API key, which is not shown", "shell's history", "keys find"}},
		"mistyped as an argument": {"", []string{c.secrets["mistyped key"]}, 2, []string{"is an API key, which is not shown"}},
		"ID as an argument":       {"", []string{c.id}, 2, []string{"write `caddy keystile keys find <FILE`"}},
		"no such bundle":          {key, []string{"-b", "shop"}, 1, []string{`"shop" is not in`, `"default" "example"`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := caddy(t, c.dir, tt.stdin, append([]string{"keystile", "keys", "find"}, tt.args...)...)
			c.look(t, name, r.out+r.errors)
			if r.status != tt.status {
				t.Errorf("%+v", r)
			}
			for _, want := range tt.want {
				if !strings.Contains(r.out+r.errors, want) {
					t.Errorf("not %q: %+v", want, r)
				}
			}
		})
	}
	keystile(t, c.dir, 0, "keys", "revoke", "--bundle", "example", c.id)
	if r := caddy(t, c.dir, key, "keystile", "keys", "find"); r.status != 0 || !strings.Contains(r.out, "revoked") {
		t.Errorf("a revoked key: %+v", r)
	}
}

// No command takes an API key for a key's ID, and none that changes keys does it then.
func TestKeyIsNoID(t *testing.T) {
	c := newCanaries(t)
	// Without a checksum and of one case: elsewhere it could be a name.
	c.secrets["imported key"] = "sk_live_" + strings.ToLower(credential.RandomText(24))
	for _, verb := range []string{"show", "revoke", "roll", "history", "find"} {
		for _, what := range []string{"key", "mistyped key", "header", "imported key"} {
			r := caddy(t, c.dir, "", "keystile", "keys", verb, c.secrets[what])
			c.look(t, verb, r.out+r.errors)
			if r.status != 2 || !strings.Contains(r.errors, "keys find") {
				t.Errorf("%s %s: %+v", verb, what, r)
			}
		}
	}
	if keys := listed(t, c.dir); len(keys) != 1 || keys[0].Status != "active" {
		t.Errorf("%+v", keys[0])
	}
}

// Keys that another system made have no checksum: the policy's form tells them.
func TestImportedKeyIsNoName(t *testing.T) {
	dir := t.TempDir()
	policy := "name: notes\nsources: [{header: X-Notes-Key}]\nimported_keys: true\nkinds: {app: {prefix: nk}}\nenvironments: {live: }\nroutes: [{name: notes, path: /notes}]\n"
	if err := os.WriteFile(filepath.Join(dir, "notes.yaml"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	keystile(t, dir, 0, "init", "notes", "--policy", filepath.Join(dir, "notes.yaml"))
	key := "nk_live_" + strings.ToLower(credential.RandomText(24))
	for _, flag := range []string{"--name", "--tenant", "--kind", "--environment", "--scope"} {
		r := caddy(t, dir, "", "keystile", "keys", "create", "--kind", "app", flag, key)
		if r.status == 0 || strings.Contains(r.out+r.errors, key[8:]) {
			t.Errorf("%s: %+v", flag, r)
		}
	}
	if keys := listed(t, dir); len(keys) != 0 {
		t.Errorf("%d keys", len(keys))
	}
}
