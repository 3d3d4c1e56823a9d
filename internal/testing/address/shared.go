package address

import (
	"context"
	"net"
	"strconv"
	"syscall"
)

const reusePort = 15 // SO_REUSEPORT, of Linux

// Shared listens on all addresses at a port, or at any for 0, and shares it as Caddy and
// Envoy do by themselves: for tests that show who does not share it.
func Shared(port int) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1) }); failed != nil {
			return failed
		}
		return err
	}}
	return config.Listen(context.Background(), "tcp", ":"+strconv.Itoa(port))
}
