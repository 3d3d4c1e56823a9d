package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/internal/testing/certificate"
)

// The demo runs, twice from one folder, and every line that it prints gives the
// answer that it promises.
func TestDemo(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: install it with `apt-get install curl`")
	}
	home, p := t.TempDir(), freePorts(t)
	t.Chdir("../..")
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		d := &demo{home: home, ports: p}
		err := d.run(ctx, func() {
			defer cancel()
			tries := d.tries()
			if len(tries) < 10 {
				t.Errorf("%d lines to try", len(tries))
			}
			for _, try := range tries {
				out, err := exec.Command("sh", "-c", try.command+` -s -o - -w '\n%{http_code}'`).Output()
				answer := string(out)
				if err != nil || answer[strings.LastIndexByte(answer, '\n')+1:] != strconv.Itoa(try.status) {
					t.Errorf("%s: %v\n%s", try.why, err, answer)
				}
				if try.status == 200 && !strings.Contains(answer, "key ID:      ") {
					t.Errorf("%s: the upstream's answer is not there:\n%s", try.why, answer)
				}
			}
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// freePorts takes ports that no other test has.
func freePorts(t *testing.T) (p ports) {
	t.Helper()
	for _, to := range []*int{&p.https, &p.http, &p.api} {
		free, err := address.Free()
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(free)
		*to, _ = strconv.Atoi(port)
	}
	return p
}

// shared listens at a port, and shares it.
func shared(t *testing.T, port int) net.Listener {
	t.Helper()
	l, err := address.Shared(port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A port that is busy is named, with what to do, although whoever has it would share it;
// so are those that are no ports.
func TestBusyPort(t *testing.T) {
	for i := range 3 {
		l := shared(t, 0)
		busy := l.Addr().(*net.TCPAddr).Port
		want := fmt.Sprintf("port %d is busy", busy)
		var err error
		for try := 0; try < 10 && (err == nil || !strings.Contains(err.Error(), want)); try++ { // the other two may be taken meanwhile
			all := []int{unusedPort(t), unusedPort(t), unusedPort(t)}
			all[i] = busy
			_, err = takePorts(fmt.Sprintf("%d,%d,%d", all[0], all[1], all[2]))
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "make run PORTS=") {
			t.Errorf("%v, and not: %s", err, want)
		}
	}
	for _, listed := range []string{"", "1", "1,2", "1,2,3,4", "1,2,70000", "0,1,2", "a,b,c", "1,2,3x", "1,1,2", "1,2,1", "2,1,1"} {
		if _, err := takePorts(listed); err == nil || !strings.Contains(err.Error(), "ports ") {
			t.Errorf("%q: %v", listed, err)
		}
	}
}

// unusedPort is a port that nobody has.
func unusedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The demo does not say that it runs where somebody else shares one of its ports.
func TestSharedPort(t *testing.T) {
	home, p := t.TempDir(), freePorts(t)
	t.Chdir("../..")
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("another demo")) })}
	certificates := t.TempDir()
	if err := certificate.Write(certificates); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, port := range []int{p.http, p.https} {
		l := shared(t, port)
		go func() {
			if port == p.https {
				other.ServeTLS(l, filepath.Join(certificates, "cert.pem"), filepath.Join(certificates, "key.pem"))
			} else {
				other.Serve(l)
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		d := &demo{home: home, ports: p}
		err := d.run(ctx, func() {
			t.Errorf("it runs, and shares port %d", port)
			cancel()
		})
		cancel()
		if want := fmt.Sprintf("port %d: somebody else answers there too", port); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, and not: %s", err, want)
		}
		l.Close()
	}
}
