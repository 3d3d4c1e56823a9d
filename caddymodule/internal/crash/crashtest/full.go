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
)

const envLimit = "KEYSTILE_FILE_LIMIT"

// full are the words of systems and of SQLite for a disk that is full.
var full = []string{syscall.EFBIG.Error(), syscall.ENOSPC.Error(), "disk I/O error", "database or disk is full"}

// Full runs step on a folder that prepare has filled, again and again in a process
// of its own, which can write no file beyond a limit: the next byte fails, as on a
// disk that is full. The limit rises until the step comes to its end. After each,
// check looks at the folder, with space again; err is what the step said, "" at
// last. It must say that the disk is full. Like [Each], Full is called directly by
// a test, once.
func Full(t *testing.T, prepare func(dir string), step func(dir string) error, check func(dir, err string)) {
	t.Helper()
	if limit, err := strconv.Atoi(os.Getenv(envLimit)); err == nil {
		limited(limit, step)
	}
	failed := 0
	for limit := 0; ; limit = max(2*limit, 128) {
		dir := t.TempDir()
		prepare(dir)
		self := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		self.Env = append(os.Environ(), envLimit+"="+strconv.Itoa(limit), envDir+"="+dir)
		_, err := self.Output()
		if err == nil {
			check(dir, "")
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("with %d bytes: %v", limit, err)
		}
		failed++
		said := strings.TrimSpace(string(exit.Stderr))
		if !saysFull(said) {
			t.Errorf("with %d bytes: it does not say that the disk is full: %s", limit, said)
		}
		check(dir, said)
	}
	if failed == 0 {
		t.Error("the step writes nothing")
	}
}

func saysFull(err string) bool {
	for _, word := range full {
		if strings.Contains(err, word) {
			return true
		}
	}
	return false
}

// limited runs step while no file can be longer than limit.
func limited(limit int, step func(dir string) error) {
	if err := Limit(limit); err == nil {
		err = step(os.Getenv(envDir))
		if err == nil {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(2)
}

// Limit keeps this process from writing any file beyond limit, for good.
func Limit(limit int) error {
	signal.Ignore(syscall.SIGXFSZ)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(limit), Max: uint64(limit)})
}
