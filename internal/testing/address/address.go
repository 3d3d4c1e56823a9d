// Package address takes ports of this machine for servers that are other processes and
// cannot be handed a listener: Caddy and Envoy, in tests, measurements and the demo.
//
// Such a server shares a port in silence with whoever else shares it (SO_REUSEPORT), so
// that each answers some of the other's calls. [Free] and [Take] give a port to one
// process alone: it is locked by a file for as long as the process runs, so that two who
// start at once cannot both have it, and nobody listens there, who shares it or not.
package address

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// The ports of [Free] are below those that Linux gives to outgoing connections by itself
// (from 32768 on).
const (
	first = 20_000
	count = 12_000
)

// locks is the folder of the locks, one for all processes of this machine.
func locks() string { return filepath.Join(os.TempDir(), "keystile-test-ports") }

// Free takes a port that nobody has, for TCP and UDP, and gives its address on 127.0.0.1.
func Free() (address string, err error) {
	for range 1000 {
		port := first + rand.IntN(count)
		if err = Take(port); err == nil {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
		}
	}
	return "", fmt.Errorf("no port from %d to %d is to be had: %w", first, first+count, err)
}

// TakeListed takes the ports that listed names, with commas between them, and gives them
// to to: so many, and no two the same, as in like. Where one is busy, choose says what to do.
func TakeListed(listed, like, choose string, to ...*int) error {
	parts := strings.Split(listed, ",")
	if len(parts) != len(to) {
		return fmt.Errorf("ports %q: give %d that differ, as in %s", listed, len(to), like)
	}
	var ports []int
	for i, part := range parts {
		port, err := strconv.Atoi(strings.TrimSpace(part))
		switch {
		case err != nil || port < 1 || port > 65535:
			return fmt.Errorf("ports %q: %q is no port", listed, part)
		case slices.Contains(ports, port):
			return fmt.Errorf("ports %q: give %d that differ, as in %s", listed, len(to), like)
		}
		ports, *to[i] = append(ports, port), port
	}
	for _, port := range ports {
		if err := Take(port); err != nil {
			return fmt.Errorf("%w: %s", err, choose)
		}
	}
	return nil
}

// Take takes a port, for TCP and UDP, on all of this machine's addresses. It fails where
// somebody has it, or listens there.
func Take(port int) error {
	f, err := lock(filepath.Join(locks(), strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("port %d is busy: %w", port, err)
	}
	if err := unused(port); err != nil {
		f.Close()
		return fmt.Errorf("port %d is busy: %w", port, err)
	}
	mu.Lock()
	defer mu.Unlock()
	kept = append(kept, f) // else it would be closed when it is collected
	return nil
}

var (
	mu   sync.Mutex
	kept []*os.File
)

// lock locks a file until the process ends. It fails if somebody has it, this process too.
func lock(file string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another demo or test has taken it (%s: %w)", file, err)
	}
	return f, nil
}

// unused says who could not be alone at a port. Listeners of Go's do not share theirs.
func unused(port int) error {
	all := ":" + strconv.Itoa(port)
	l, err := net.Listen("tcp", all)
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", all)
	if err != nil {
		return err
	}
	return c.Close()
}
