package address

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if port, err := strconv.Atoi(os.Getenv("KEYSTILE_TEST_TAKE")); err == nil {
		fmt.Println(Take(port))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// elsewhere takes a port in another process.
func elsewhere(t *testing.T, port int) string {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "KEYSTILE_TEST_TAKE="+strconv.Itoa(port))
	out, err := other.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func free(t *testing.T) (address string, port int) {
	t.Helper()
	address, err := Free()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := net.SplitHostPort(address)
	port, _ = strconv.Atoi(text)
	return address, port
}

// A port that is taken stays so, for this process and others, before anybody listens.
func TestTaken(t *testing.T) {
	_, port := free(t)
	if err := Take(port); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d is busy", port)) {
		t.Errorf("taken twice: %v", err)
	}
	if said := elsewhere(t, port); !strings.Contains(said, fmt.Sprintf("port %d is busy", port)) {
		t.Errorf("taken by another process: %s", said)
	}
}

// One where somebody listens is busy, whatever the address, and also if it is shared.
func TestListening(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::]", "0.0.0.0"} {
		// A port of the system's own choice, which nobody has taken.
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		if err := Take(l.Addr().(*net.TCPAddr).Port); err == nil {
			t.Errorf("TCP, %s: taken", host)
		}
		l.Close()
		c, err := net.ListenPacket("udp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		if err := Take(c.LocalAddr().(*net.UDPAddr).Port); err == nil {
			t.Errorf("UDP, %s: taken", host)
		}
		c.Close()
	}
	l, err := Shared(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	if other, err := Shared(port); err != nil {
		t.Errorf("it is not shared: %v", err)
	} else {
		other.Close()
	}
	if err := Take(port); err == nil {
		t.Error("shared: taken")
	}
}
