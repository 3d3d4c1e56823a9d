package main_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/internal/testing/envoy"
)

var soak = flag.Int("soak", 20_000, "random requests to send; memory is compared at a tenth of them and at the end")

// R68, R70: after a million requests with random lines no memory has leaked, none
// was allowed that should not be, and a good key is allowed.
func TestRandomRequests(t *testing.T) {
	a := newAPI(t, "shop", "api.test")
	_, key := a.key()
	e := start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{})
	send := func(n int) (allowed int64) {
		var group sync.WaitGroup
		var good atomic.Int64
		const connections = 8
		for worker := range connections {
			group.Go(func() {
				g := generator{rnd: rand.New(rand.NewPCG(uint64(worker), uint64(n))), key: key}
				for sent := 0; sent < n/connections; {
					done, ok, err := e.burst(&g, min(50, n/connections-sent))
					if err != nil {
						t.Error(err)
						return
					}
					sent += done
					good.Add(int64(ok))
				}
			})
		}
		group.Wait()
		return good.Load()
	}
	tenth := *soak / 10
	if allowed := send(tenth); allowed != 0 {
		t.Errorf("%d random requests were allowed", allowed)
	}
	time.Sleep(time.Second)
	before := e.rss()
	if allowed := send(*soak - tenth); allowed != 0 {
		t.Errorf("%d random requests were allowed", allowed)
	}
	time.Sleep(time.Second)
	after := e.rss()
	t.Logf("VmRSS after %d requests %d KiB, after %d %d KiB", tenth, before, *soak, after)
	if after > before*105/100 && *soak >= 1_000_000 {
		t.Errorf("VmRSS has grown from %d to %d KiB", before, after)
	}
	if got := e.get(key); got != 200 {
		t.Errorf("a good key afterwards: %d", got)
	}
	if e.reached.Load() != 1 {
		t.Errorf("the upstream was reached %d times", e.reached.Load())
	}
	for _, line := range e.process.Lines() {
		if strings.Contains(line, "panic") || strings.Contains(line, "trap") {
			t.Error(line)
		}
	}
}

// rss is Envoy's resident memory in KiB.
func (e *edge) rss() int {
	e.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.process.Process.Pid))
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			n, err := strconv.Atoi(strings.Fields(string(rest))[0])
			if err != nil {
				e.t.Fatal(err)
			}
			return n
		}
	}
	e.t.Fatal("no VmRSS")
	return 0
}

// burst sends requests on one connection and reads their answers.
func (e *edge) burst(g *generator, n int) (done, allowed int, err error) {
	conn, err := tls.Dial("tcp", e.https, &tls.Config{ServerName: "api.test", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(eventWait))
	r := bufio.NewReader(conn)
	for done < n {
		raw, method := g.request()
		done++
		if _, err := conn.Write(raw); err != nil {
			return done, allowed, nil // closed after one that was no HTTP
		}
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return done, allowed, nil
		}
		if response.StatusCode < 300 {
			allowed++
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return done, allowed, nil
		}
		if response.Close {
			return done, allowed, nil
		}
	}
	return done, allowed, nil
}

// generator makes requests that no policy allows: what is random in them is
// everything but that.
type generator struct {
	rnd *rand.Rand
	key string
}

func (g *generator) pick(list ...string) string { return list[g.rnd.IntN(len(list))] }

func (g *generator) text(alphabet string, n int) string {
	var b strings.Builder
	for range g.rnd.IntN(n) {
		b.WriteByte(alphabet[g.rnd.IntN(len(alphabet))])
	}
	return b.String()
}

const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!$&'()*+=:@//%%?"

const visible = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!$&'()*+,;=:@/?%[]{}|\\^`\"<>"

func (g *generator) request() (raw []byte, method string) {
	method = g.pick("GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "DELETE", "PATCH")
	var b bytes.Buffer
	// Envoy closes the connection after what is no HTTP, which takes its time.
	path, host := "/"+g.text(plain, 60), g.pick("api.test", "api.test", "API.test:443", "other.test")
	if g.rnd.IntN(50) == 0 {
		path = "/" + g.text(visible, 60)
	}
	if g.rnd.IntN(50) == 0 {
		host = g.text(visible, 20)
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	// A key that is nearly the good one, or none.
	broken := []byte(g.key)
	broken[g.rnd.IntN(len(broken))] ^= 1
	switch g.rnd.IntN(5) {
	case 0:
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", broken)
	case 1:
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n", g.key, g.key)
	case 2:
		fmt.Fprintf(&b, "Authorization: %s\r\n", g.text(visible, 80))
	case 3:
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\nCookie: a=%s\r\n", g.key, g.key)
	}
	for range g.rnd.IntN(12) {
		fmt.Fprintf(&b, "%s: %s\r\n", g.pick("X-Forwarded-For", "Keystile-Key-Id", "keystile_key_id", "Origin", "Referer", "Cookie", "Connection", "X-"+g.text("abcdefghij", 10)), g.text(visible, 100))
	}
	b.WriteString("Content-Length: 0\r\n\r\n")
	return b.Bytes(), method
}
