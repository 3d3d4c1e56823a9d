// Package address gives tests addresses on this machine that nothing else takes before
// they listen there: a server that is another process, such as Envoy, cannot be handed a
// listener.
//
// [Free] keeps each port for as long as the process runs, by a lock on a file, and takes
// none of those that the system gives to outgoing connections.
package address

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// The ports are below those that Linux gives out by itself (from 32768 on).
const (
	first = 20_000
	count = 12_000
)

// Free is an address of 127.0.0.1, free for TCP and UDP.
func Free() (string, error) {
	dir := filepath.Join(os.TempDir(), "keystile-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	for range 1000 {
		port := strconv.Itoa(first + rand.IntN(count))
		if address := "127.0.0.1:" + port; taken(filepath.Join(dir, port)) && unused(address) {
			return address, nil
		}
	}
	return "", fmt.Errorf("no port from %d to %d is free: remove %s if no test runs", first, first+count, dir)
}

// taken locks a file until the process ends; it returns false if another has it, or
// this one.
func taken(file string) bool {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return false
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		f.Close()
		return false
	}
	mu.Lock()
	defer mu.Unlock()
	kept = append(kept, f) // else it would be closed when it is collected
	return true
}

var (
	mu   sync.Mutex
	kept []*os.File
)

func unused(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
