package crashtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keystile/keystile/internal/crash"
)

const (
	envLimit     = "KEYSTILE_FILE_LIMIT"
	envPointFull = "KEYSTILE_FULL_POINT"
)

// full are the words of systems and of SQLite for a disk that is full.
var full = []string{syscall.EFBIG.Error(), syscall.ENOSPC.Error(), "is the disk full?", "database or disk is full"}

// Full runs step on a folder that prepare has filled, again and again in a process
// of its own, on a disk that is full: first no file can be longer than a limit,
// which rises until the step comes to its end; then nothing can be written any more
// from the first crash point on, from the second, and so on. After each, check
// looks at the folder, with space again; err is what the step said, "" if it came
// to its end. It must say that the disk is full. Like [Each], Full is called
// directly by a test, once.
func Full(t *testing.T, prepare func(dir string), step func(dir string) error, check func(dir, err string)) {
	t.Helper()
	if limit, err := strconv.Atoi(os.Getenv(envLimit)); err == nil {
		limited(limit, step)
	}
	f := filler{t, prepare, check}
	limit := 0
	for ; f.run(limit, 0) != done; limit = max(2*limit, 128) {
	}
	if limit == 0 {
		t.Error("the step writes nothing")
	}
	for n := 1; f.run(0, n) != unreached; n++ {
	}
}

type filler struct {
	t       *testing.T
	prepare func(dir string)
	check   func(dir, err string)
}

// How a step on a full disk ended: it did not notice, it failed, or it never got
// to the crash point at which the disk is full.
const (
	done      = 0
	failed    = 1
	unreached = 3
)

// run lets the step meet a limit, from the n-th crash point on if n is not 0.
func (f *filler) run(limit, n int) (exit int) {
	f.t.Helper()
	dir := f.t.TempDir()
	f.prepare(dir)
	self := exec.Command(os.Args[0], "-test.run=^"+f.t.Name()+"$")
	self.Env = append(os.Environ(), envLimit+"="+strconv.Itoa(limit), envPointFull+"="+strconv.Itoa(n), envDir+"="+dir)
	_, err := self.Output()
	said := ""
	var failure *exec.ExitError
	switch {
	case err == nil:
	case !errors.As(err, &failure):
		f.t.Fatal(err)
	case failure.ExitCode() == failed:
		said = strings.TrimSpace(string(failure.Stderr))
		if !saysFull(said) {
			f.t.Errorf("with %d bytes from point %d on: it does not say that the disk is full: %s", limit, n, said)
		}
	case failure.ExitCode() != unreached:
		f.t.Fatalf("with %d bytes from point %d on: %v: %s", limit, n, err, failure.Stderr)
	}
	f.check(dir, said)
	return self.ProcessState.ExitCode()
}

func saysFull(err string) bool {
	for _, word := range full {
		if strings.Contains(err, word) {
			return true
		}
	}
	return false
}

// limited runs step while no file can be longer than limit, from the crash point
// that the environment names on.
func limited(limit int, step func(dir string) error) {
	n, err := strconv.Atoi(os.Getenv(envPointFull))
	if err == nil && n == 0 {
		err = Limit(limit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	passed := 0
	crash.At = func(string) {
		if passed++; passed == n {
			if err := Limit(limit); err != nil {
				panic(err)
			}
		}
	}
	switch err := step(os.Getenv(envDir)); {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(failed)
	case passed < n:
		os.Exit(unreached)
	}
	os.Exit(done)
}

// Limit keeps this process from writing any file beyond limit, for good.
func Limit(limit int) error {
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(limit), Max: uint64(limit)})
}
