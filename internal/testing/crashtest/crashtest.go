// Package crashtest kills a process at each point that a step passes, and lets a
// test look at what is left.
package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keystile/keystile/internal/crash"
)

const (
	envPoint = "KEYSTILE_CRASH_POINT"
	envDir   = "KEYSTILE_CRASH_DIR"
)

// None is the point given to check after the step that came to its end.
const None = "no crash"

// Each runs step on a folder that prepare has filled, again and again in a
// process of its own, which kills itself (SIGKILL) at the first crash point, at
// the second, and so on until it comes to its end. After each, check looks at
// the folder. Each is called directly by a test, once: the other process runs the
// same test.
func Each(t *testing.T, prepare func(dir string), step func(dir string) error, check func(dir, point string)) {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv(envPoint)); err == nil {
		child(n, step)
	}
	for n := 1; ; n++ {
		dir := t.TempDir()
		prepare(dir)
		self := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		self.Env = append(os.Environ(), envPoint+"="+strconv.Itoa(n), envDir+"="+dir)
		out, err := self.Output()
		point := "crash point " + strings.TrimSpace(string(out))
		var exit *exec.ExitError
		switch {
		case err == nil:
			if n == 1 {
				t.Fatal("the step passes no crash point")
			}
			check(dir, None)
			return
		case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
			check(dir, point)
		default:
			t.Fatalf("%s: %v: %s", point, err, exit.Stderr)
		}
	}
}

// EnvPoint is the environment variable with the number of the point at which
// [Arm] kills.
const EnvPoint = envPoint

// Arm is for a program under test: it lets the process kill itself at the point
// that [EnvPoint] names, if that is set.
func Arm() {
	if n, err := strconv.Atoi(os.Getenv(envPoint)); err == nil {
		killAt(n)
	}
}

func killAt(n int) {
	passed := 0
	crash.At = func(name string) {
		if passed++; passed == n {
			fmt.Println(passed, name)
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// child runs step and kills itself at the n-th point.
func child(n int, step func(dir string) error) {
	killAt(n)
	if err := step(os.Getenv(envDir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
