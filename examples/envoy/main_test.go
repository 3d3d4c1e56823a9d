package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/internal/testing/address"
)

// The example runs, every line that it prints gives the answer that it promises, and
// Envoy logs no error, nor that something in the configuration is deprecated.
func TestExample(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: install it with `apt-get install curl`")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	p := freePorts(t)
	var log bytes.Buffer
	err := run(ctx, t.TempDir(), p, &log, func(text string) {
		defer cancel()
		lines := regexp.MustCompile(`(?m)^# (\d+): (.*)\n(curl .*)$`).FindAllStringSubmatch(text, -1)
		if len(lines) < 5 {
			t.Errorf("%d lines to try", len(lines))
		}
		for _, l := range lines {
			out, err := exec.Command("sh", "-c", l[3]+` -s -o - -w '\n%{http_code}'`).Output()
			answer := string(out)
			if err != nil || !strings.HasSuffix(answer, "\n"+l[1]) {
				t.Errorf("%s: %v\n%s", l[2], err, answer)
			}
			if l[2] == "the API learns who calls" && !strings.Contains(answer, "GET /x for key_") {
				t.Errorf("the API was not told:\n%s", answer)
			}
		}
		p.plain(t)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if !strings.Contains(log.String(), "bundle in use") {
		t.Errorf("the log does not say that the bundle is in use:\n%s", &log)
	}
	for line := range strings.Lines(log.String()) {
		if regexp.MustCompile(`\[(error|critical)\]|(?i)deprecated|restricted`).MatchString(line) {
			t.Errorf("Envoy logs: %s", line)
		}
	}
}

// plain says that the listener for plain HTTP gives everything one answer, and closes
// the connection.
func (p ports) plain(t *testing.T) {
	authority := fmt.Sprintf("api.localhost:%d", p.https)
	host := " HTTP/1.1\r\nHost: " + authority + "\r\n"
	want := ""
	for _, request := range []string{
		"GET /x" + host + "\r\n",
		"GET /x" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"POST /x" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"CONNECT " + authority + host + "\r\n",
	} {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.http))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(conn, request)
		raw, err := io.ReadAll(conn)
		got := regexp.MustCompile(`(?m)^(date|request-id): .*\n`).ReplaceAllString(string(raw), "")
		if want == "" {
			want = got
		}
		if err != nil || got != want || !strings.Contains(got, "\r\nconnection: close\r\n") {
			t.Errorf("%.30q: %v %q", request, err, got)
		}
	}
}

// freePorts takes ports that no other test has.
func freePorts(t *testing.T) (p ports) {
	t.Helper()
	for _, to := range []*int{&p.https, &p.http, &p.admin} {
		free, err := address.Free()
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(free)
		*to, _ = strconv.Atoi(port)
	}
	return p
}

// A port that is busy is named, with what to do; so are those that are no ports.
func TestBusyPort(t *testing.T) {
	l, err := serve(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := takePorts(fmt.Sprintf("%d,1,2", port(l))); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("port %d is busy", port(l))) || !strings.Contains(err.Error(), "make run-envoy PORTS=") {
		t.Error(err)
	}
	for _, listed := range []string{"", "1", "1,2", "1,2,3,4", "1,1,2", "1,2,70000", "a,b,c", "1,2,3x"} {
		if _, err := takePorts(listed); err == nil || !strings.Contains(err.Error(), "ports ") {
			t.Errorf("%q: %v", listed, err)
		}
	}
}

// Envoy does not start where somebody shares one of its ports, even if the port was free
// before.
func TestSharedPort(t *testing.T) {
	p := freePorts(t)
	l, err := address.Shared(p.http)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var log bytes.Buffer
	err = run(ctx, t.TempDir(), p, &log, func(string) {
		t.Error("it runs")
		cancel()
	})
	if err == nil || !strings.Contains(log.String(), "Address already in use") {
		t.Errorf("%v\n%s", err, &log)
	}
}
