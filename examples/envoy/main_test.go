package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The example runs, every line that it prints gives the answer that it promises, and
// Envoy logs no error, nor that something in the configuration is deprecated.
func TestExample(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: install it with `apt-get install curl`")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var log bytes.Buffer
	err := run(ctx, &log, func(text string) {
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
		plain(t)
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
func plain(t *testing.T) {
	const host = " HTTP/1.1\r\nHost: api.localhost:10443\r\n"
	want := ""
	for _, request := range []string{
		"GET /x" + host + "\r\n",
		"GET /x" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		"POST /x" + host + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"CONNECT api.localhost:10443" + host + "\r\n",
	} {
		conn, err := net.Dial("tcp", "127.0.0.1:10080")
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
