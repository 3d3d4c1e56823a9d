package command_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/rogpeppe/go-internal/testscript"

	_ "github.com/keystile/keystile/caddymodule"
	_ "github.com/keystile/keystile/caddymodule/command"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/demo/token"
	"github.com/keystile/keystile/internal/testing/crashtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"caddy": func() {
			crashtest.Arm()
			caddycmd.Main()
		},
		"trust-demo-customers": trustDemoCustomers,
	})
}

// trustDemoCustomers makes the only bundle of ./keystile one of the demo's, as
// `make run` does.
func trustDemoCustomers() {
	h, err := control.Open("keystile")
	if err == nil {
		defer h.Close()
		var b *control.Bundle
		if b, err = h.Bundle(""); err == nil {
			err = token.Trust(context.Background(), b)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// A command that is killed (kill -9) between any two of its steps leaves a bundle
// that is whole and no older, and what is left is finished by giving it again.
func TestKilled(t *testing.T) {
	template := t.TempDir()
	keystile(t, template, 0, "init", "default")
	keystile(t, template, 0, "keys", "create", "--kind", "secret", "-e", "live")
	id := listed(t, template)[0].ID
	for name, args := range map[string][]string{
		"create":  {"keys", "create", "--kind", "secret", "-e", "live"},
		"revoke":  {"keys", "revoke", id},
		"renew":   {"bundle", "renew"},
		"restore": {"keys", "restore"},
		"build":   {"bundle", "build", "--life", "7d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, killed := 1, true; killed; n++ {
				dir := t.TempDir()
				if out, err := exec.Command("cp", "-a", filepath.Join(template, "home"), dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if name == "restore" {
					if err := os.Remove(filepath.Join(dir, "home", "keystile.db")); err != nil {
						t.Fatal(err)
					}
				}
				_, version := seen(t, dir)
				if killed = keystile(t, dir, n, args...); n == 1 && !killed {
					t.Error("it was not killed")
				}
				if status, v := seen(t, dir); v < version || status[id] != bundle.Active && name != "revoke" {
					t.Errorf("killed at point %d: version %d after %d, key %v", n, v, version, status[id])
				}
				if killed {
					keystile(t, dir, 0, args...)
				}
				status, v := seen(t, dir)
				if v <= version || name == "revoke" != (status[id] == bundle.Revoked) || name != "create" && len(status) != 1 {
					t.Errorf("given again after point %d: version %d after %d, %v", n, v, version, status)
				}
				if keys := listed(t, dir); len(keys) != len(status) {
					t.Errorf("after point %d: %d keys in the store, and %d published", n, len(keys), len(status))
				}
			}
		})
	}
}

// A renewal that goes on does so after a failure, and takes over a new signer.
func TestRenewEvery(t *testing.T) {
	dir := t.TempDir()
	keystile(t, dir, 0, "init", "default")
	cmd := exec.Command("caddy", "keystile", "--home", filepath.Join(dir, "home"), "bundle", "renew", "--every", "10ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("it has ended, and said nothing of %q", want)
	}
	until("Renewed bundle default")
	key := filepath.Join(dir, "home", "default", "publisher.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	until("The renewal failed, and is tried again in 10ms")
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	until("Renewed bundle default")
	keystile(t, dir, 0, "bundle", "rotate", "signer")
	keystile(t, dir, 0, "bundle", "rotate", "signer") // now it trusts none of those from the beginning
	_, version := seen(t, dir)
	for {
		until("Renewed bundle default")
		if _, v := seen(t, dir); v > version {
			return
		}
	}
}

// keystile runs a command on the home in dir, and kills it at the n-th point. It
// returns false if the command has come to its end before.
func keystile(t *testing.T, dir string, n int, args ...string) (killed bool) {
	t.Helper()
	cmd := exec.Command("caddy", append([]string{"keystile", "--home", filepath.Join(dir, "home")}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", crashtest.EnvPoint, n))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case n > 0 && errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
		return true
	}
	t.Fatalf("%q: %v: %s", args, err, out)
	return false
}

func opened(t *testing.T, dir string) (*control.Home, *control.Bundle) {
	t.Helper()
	h, err := control.Open(filepath.Join(dir, "home"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := h.Bundle("")
	if err != nil {
		t.Fatal(err)
	}
	return h, b
}

func listed(t *testing.T, dir string) []*control.Key {
	t.Helper()
	h, b := opened(t, dir)
	defer h.Close()
	keys, err := b.Keyring().List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// seen is what an edge reads.
func seen(t *testing.T, dir string) (status map[string]bundle.Status, version int64) {
	t.Helper()
	_, published := opened(t, dir)
	b, source, err := published.OpenFile()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	status = make(map[string]bundle.Status)
	if err := b.Walk(func(r *bundle.Record) error { status[r.KeyID] = r.Status; return nil }); err != nil {
		t.Fatal(err)
	}
	return status, b.Manifest.Version
}
