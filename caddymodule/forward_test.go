package caddymodule_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/keystile/keystile/internal/control"
)

// recorder is a TCP proxy that remembers what went to the upstream.
type recorder struct {
	address string
	written // over all connections so far
}

func newRecorder(t testing.TB, upstream string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &recorder{address: l.Addr().String()}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", upstream)
			if err != nil {
				from.Close()
				continue
			}
			go func() {
				io.Copy(to, io.TeeReader(from, r))
				to.Close()
			}()
			go func() {
				io.Copy(from, to)
				from.Close()
			}()
		}
	}()
	return r
}

// startHypercorn starts an HTTP server that switches to HTTP/2 for whoever asks.
func startHypercorn(t testing.TB) string {
	t.Helper()
	packages, err := filepath.Abs("../bin/hypercorn")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(packages); err != nil {
		t.Fatal("Hypercorn is not there: fetch it with `make hypercorn`")
	}
	dir := t.TempDir()
	app := "async def app(scope, receive, send):\n" +
		"    if scope['type'] == 'http':\n" +
		"        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n" +
		"        await send({'type': 'http.response.body', 'body': scope['path'].encode()})\n"
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	server := exec.Command("python3", "-m", "hypercorn", "--workers", "0", "--bind", "fd://3", "app:app")
	server.Dir, server.ExtraFiles = dir, []*os.File{socket}
	server.Env = append(os.Environ(), "PYTHONPATH="+packages)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	return l.Addr().String()
}

// raw sends a request by HTTP/1.1, byte by byte, reads the answer's head, sends more,
// and reads until the connection ends.
func (s *server) raw(request, more string) (*http.Response, error) {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: "api.vinr.com", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, strings.ReplaceAll(request, "\n", "\r\n"))
	from := bufio.NewReader(conn)
	response, err := http.ReadResponse(from, nil)
	if err != nil {
		return nil, err
	}
	io.Copy(io.Discard, response.Body)
	io.WriteString(conn, more)
	conn.CloseWrite()
	io.Copy(io.Discard, from)
	return response, nil
}

// preface begins a connection of HTTP/2, with a request that the key may not make.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00 POST /v1/payouts keystile-tenant: victim"

// R5: nothing of what a client sends behind its request reaches the upstream: a
// request for another protocol is taken off, with every upstream that would grant it.
func TestUpgradeOpensNoTunnel(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "restricted", Environment: "live", Tenant: "acct_1", Scopes: []string{"refunds:read"}})
	// An upstream that switches whether it was asked or not.
	switching := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
		buffered.Flush()
		io.Copy(io.Discard, buffered)
	}))
	defer switching.Close()
	for name, upstream := range map[string]string{"Hypercorn": startHypercorn(t), "switching": switching.Listener.Addr().String()} {
		to := newRecorder(t, upstream)
		s := start(t, h, []string{"vinr"}, func(*server) string { return fmt.Sprintf(vinrSites, to.address) })
		for what, lines := range map[string]string{
			"h2c": "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\n", "h2c twice": "Connection: Upgrade\nUpgrade: h2c\nUpgrade: h2c\n",
			"TLS": "Connection: Upgrade\nUpgrade: TLS/1.2\n", "list": "Connection: upgrade\nUpgrade: h2c, TLS/1.2\n", "alias": "Connection: Upgrade\nUpgrade: foo/2\nHTTP2_Settings: AAMAAABk\n",
		} {
			before := len(to.String())
			response, err := s.raw("GET /v1/refunds HTTP/1.1\nHost: api.vinr.com\nX-Api-Key: "+key+"\n"+lines+"\n", preface)
			if err == nil && response.StatusCode == http.StatusSwitchingProtocols || err == nil && name == "Hypercorn" && response.StatusCode != 200 {
				t.Errorf("%s, %s: %d", name, what, response.StatusCode)
			}
			sent := to.String()[before:]
			for _, never := range []string{"PRI ", "victim", "pgrade:", "Settings", key} {
				if strings.Contains(sent, never) {
					t.Errorf("%s, %s: the upstream's connection carries %q", name, what, never)
				}
			}
			if n := strings.Count(sent, " HTTP/1.1\r\n"); n != 1 {
				t.Errorf("%s, %s: %d request heads went to the upstream", name, what, n)
			}
		}
		if err := caddyStop(); err != nil {
			t.Fatal(err)
		}
	}
}

// startWebSocket is an upstream that opens every WebSocket and sends back what comes.
func startWebSocket(t testing.TB) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key-Id: %s\r\n\r\n", r.Header.Get("Keystile-Key-Id"))
		buffered.Flush()
		io.Copy(conn, buffered)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

const handshake = "GET /v1/payments HTTP/1.1\r\nHost: api.vinr.com\r\nX-Api-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// R5, R82: a WebSocket goes on as it is, and ends with its key.
func TestWebSocketEnds(t *testing.T) {
	h := newHome(t, "vinr")
	id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	_, other := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, func(*server) string { return fmt.Sprintf(vinrSites, startWebSocket(t)) })
	open := func(key string) *tls.Conn {
		conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: "api.vinr.com", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprintf(conn, handshake, key)
		response, err := http.ReadResponse(bufio.NewReaderSize(conn, 1), nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("X-Key-Id") == "" {
			t.Fatalf("the handshake: %v %v", response, err)
		}
		return conn
	}
	echo := func(conn *tls.Conn) error {
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		got := make([]byte, 5)
		_, err := io.ReadFull(conn, got)
		return err
	}
	ends, stays := open(key), open(other)
	if err := errors.Join(echo(ends), echo(stays)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.bundle("vinr").Keyring().Revoke(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	if n, err := ends.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the revoked key's WebSocket goes on: %d bytes, %v", n, err)
	}
	t.Logf("ended after %v", time.Since(revoked))
	if err := echo(stays); err != nil {
		t.Errorf("another key's WebSocket ends too: %v", err)
	}
}

// R82: a response that is under way is cut when its key is revoked or expires: by
// every version of HTTP, whether something is being sent or not, and after a reload
// that made a new edge.
func TestResponseEnds(t *testing.T) {
	h := newHome(t, "vinr")
	cancelled := make(chan string, 10)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/payments" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte("begin"))
		http.NewResponseController(w).Flush()
		for r.Context().Err() == nil {
			if strings.HasSuffix(r.URL.Path, "busy") {
				w.Write([]byte("more"))
				http.NewResponseController(w).Flush()
			}
			select {
			case <-r.Context().Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		cancelled <- r.URL.Path
	}))
	defer upstream.Close()
	defer upstream.CloseClientConnections() // a response that did not end
	s := start(t, h, []string{"vinr"}, func(*server) string { return fmt.Sprintf(vinrSites, upstream.Listener.Addr()) })
	h3 := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "api.vinr.com"}, Dial: s.dialQUIC}
	defer h3.Close()
	clients := map[string]http.RoundTripper{"1": s.client().Transport, "2": s.clientOf("h2"), "3": h3}
	openWith := func(key, version, path string) *http.Response {
		answer, err := clients[version].RoundTrip(newRequest(t, "GET", "https://api.vinr.com/v1/x/"+path, "X-Api-Key: "+key))
		if err != nil || fmt.Sprint(answer.ProtoMajor) != version {
			t.Fatalf("HTTP/%s: %v %v", version, answer, err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	open := func(version, path string) (id string, answer *http.Response) {
		id, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
		s.within("in use", 404, "X-Api-Key: "+key)
		if answer = openWith(key, version, path); answer.StatusCode != 200 {
			t.Fatalf("HTTP/%s: %v", version, answer)
		}
		return id, answer
	}
	// One whose key expires soon after: on a machine that is busy the first may have
	// expired before.
	openExpiring := func() (answer *http.Response) {
		for life := 3 * time.Second; life < patience; life *= 2 {
			soon := time.Now().Add(life).Truncate(time.Second)
			_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live", Expires: &soon})
			for time.Now().Before(soon) {
				if answer = openWith(key, "1", "expiring/idle"); answer.StatusCode == 200 {
					return answer
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		t.Fatalf("no response begins before its key expires: %v", answer)
		return nil
	}
	type pending struct {
		name   string
		answer *http.Response
	}
	var all []pending
	var ids []string
	for version := range clients {
		for _, path := range []string{"idle", "busy"} {
			id, answer := open(version, path)
			ids, all = append(ids, id), append(all, pending{"HTTP/" + version + " " + path, answer})
		}
	}
	all = append(all, pending{"expiring", openExpiring()})
	// Another edge takes the bundle over.
	reloaded := strings.Replace(h.globals(s.ports(), "vinr"), "signer_file", "max_age 20h\n\t\t\tsigner_file", 1)
	if err := s.load(reloaded + fmt.Sprintf(vinrSites, upstream.Listener.Addr())); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, err := h.bundle("vinr").Keyring().Revoke(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
	revoked := time.Now()
	for _, p := range all {
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, p.answer.Body)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: the response ends as if it were whole", p.name)
			}
			t.Logf("%s: after %v: %v", p.name, time.Since(revoked), err)
		case <-time.After(patience):
			t.Errorf("%s: the response goes on", p.name)
		}
	}
	for range all {
		select {
		case <-cancelled:
		case <-time.After(patience):
			t.Fatal("the upstream is not told")
		}
	}
}

// R20, R32, R35: an error page's upstream gets no less taken away than any other, over
// plain HTTP too.
func TestErrorPages(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, func(s *server) string {
		return fmt.Sprintf("http://api.vinr.com, https://api.vinr.com {\n\tkeystile vinr {\n\t\terrors pass\n\t}\n\treverse_proxy %[1]s\n\thandle_errors {\n\t\trewrite * /error.html\n\t\treverse_proxy %[1]s\n\t}\n}\n", s.upstream.Listener.Addr())
	})
	for name, tt := range map[string]struct {
		url   string
		lines []string
		page  bool
	}{
		"no route":       {"https://api.vinr.com/nothing", []string{"Authorization: Bearer " + key, "X-Copy: " + key}, true},
		"plain HTTP":     {"http://api.vinr.com/v1/payments", []string{"X-Api-Key: " + key}, true},
		"two keys":       {"https://api.vinr.com/v1/payments", []string{"X-Api-Key: " + key, "X-Api-Key: " + key}, true},
		"key in cookie":  {"https://api.vinr.com/v1/payments", []string{"Cookie: k=" + key}, true},
		"in a proxy's":   {"https://api.vinr.com/v1/payments", []string{"X-Api-Key: " + key, "X-Forwarded-Uri: /?k=" + key}, true},
		"key in the URL": {"https://api.vinr.com/v1/payments?k=" + key, []string{"X-Api-Key: " + key}, false},
		"and plain HTTP": {"http://api.vinr.com/v1/payments?k=" + key, []string{"X-Api-Key: " + key}, false},
		"and malformed":  {"https://api.vinr.com/v1/%61?k=" + key, []string{"X-Api-Key: " + key}, false},
		"and early data": {"https://api.vinr.com/v1/x?k=" + key, []string{"X-Api-Key: " + key, "Early-Data: 1"}, false},
		"plain cookie":   {"http://api.vinr.com/v1/payments", []string{"Cookie: k=" + key, "X-Copy: " + key}, true},
		"bad path":       {"https://api.vinr.com/v1/%61", []string{"Cookie: k=" + key, "X-Copy: " + key}, true},
		"WebSocket":      {"https://api.vinr.com/nothing", []string{"X-Api-Key: " + key, "Connection: Upgrade", "Upgrade: h2c"}, true},
	} {
		lines := append(tt.lines, "Keystile-Tenant: victim", "keystile~key!id: key_admin", "X-Other: stays")
		if response := s.do("GET", tt.url, lines...); response.StatusCode < 400 && !tt.page {
			t.Errorf("%s: %d", name, response.StatusCode)
		}
		if !tt.page {
			if len(s.reached) > 0 {
				t.Errorf("%s: %s reaches an error page", name, (<-s.reached).URL)
			}
			continue
		}
		got := <-s.reached
		for field, values := range got.Header {
			folded := strings.ToLower(strings.Map(func(r rune) rune {
				if strings.ContainsRune("~!_.", r) {
					return '-'
				}
				return r
			}, field))
			if strings.HasPrefix(folded, "keystile-") || strings.Contains(strings.Join(values, ","), key) || field == "Upgrade" {
				t.Errorf("%s: the error page's upstream gets %s", name, field)
			}
		}
		if got.Header.Get("X-Other") != "stays" {
			t.Errorf("%s: a line of the client's own is lost", name)
		}
	}
}

// R39–R42: an address that a client wrote is none, whatever stands right of it.
func TestForwardedFor(t *testing.T) {
	h := newHome(t, "example")
	_, key := h.create("example", control.NewKey{Kind: "secret", Environment: "live", IPs: []string{"10.0.0.1", "2001:db8::1"}})
	h.extra = "\tservers {\n\t\ttrusted_proxies static 127.0.0.1/32 192.0.2.0/24\n\t\ttrusted_proxies_strict\n\t}"
	s := start(t, h, []string{"example"}, func(s *server) string {
		return fmt.Sprintf("http://api.example.com, https://api.example.com {\n\tkeystile example\n\treverse_proxy %s\n}\n", s.upstream.Listener.Addr())
	})
	for forwarded, want := range map[string]int{
		"10.0.0.1": 200, "10.0.0.1:4711": 200, "10.0.0.1, 192.0.2.7": 200, "x, 10.0.0.1": 200, "10.0.0.1,192.0.2.7 , 192.0.2.8": 200,
		"2001:db8::1": 200, "[2001:db8::1]:80": 200,
		"10.0.0.1, garbage": 403, "10.0.0.1, unknown": 403, "10.0.0.1,": 403, "10.0.0.1, ": 403, "10.0.0.1, fe80::1%eth0": 403, "10.0.0.1, 192.0.2.7, _hidden": 403,
		"10.0.0.1, [2001:db8::2]": 403, "10.0.0.1, 192.0.2.300": 403, "10.0.0.1, 203.0.113.1": 403, "": 403, "192.0.2.7": 403, "10.0.0.1%x": 403,
	} {
		if r := s.do("GET", "https://api.example.com/v1/x", "Authorization: Bearer "+key, "X-Forwarded-For: "+forwarded); r.StatusCode != want {
			t.Errorf("%q: %d, not %d", forwarded, r.StatusCode, want)
		}
	}
}

// R25: a target in absolute form is refused, with rewritten too.
func TestAbsoluteForm(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, func(s *server) string {
		return fmt.Sprintf("http://api.vinr.com, https://api.vinr.com {\n\troute {\n\t\turi strip_prefix /old\n\t\tkeystile vinr {\n\t\t\trewritten\n\t\t}\n\t\treverse_proxy %s\n\t}\n}\n", s.upstream.Listener.Addr())
	})
	for target, want := range map[string]int{
		"/v1/payments": 200, "/old/v1/payments": 200, "https://api.vinr.com/v1/payments": 400, "http://api.vinr.com/v1/payments": 400,
		"https://api.vinr.com/old/v1/payments": 400, "x:foo": 400, "/v1/pay%6dents": 400,
	} {
		for _, host := range []string{"api.vinr.com", "evil.example"} {
			if host == "evil.example" && !strings.Contains(target, "://") {
				continue
			}
			response, err := s.raw(fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\nX-Api-Key: %s\nConnection: close\n\n", target, host, key), "")
			if err != nil || response.StatusCode != want {
				t.Errorf("%s, Host %s: %v %v, not %d", target, host, response, err, want)
			}
		}
	}
}

// R32: the key goes on under no header, and not in a trailer.
func TestKeyUnderAnotherName(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, vinr)
	_, err := s.raw("POST /v1/payments HTTP/1.1\nHost: api.vinr.com\nAuthorization: Bearer "+key+"\nX-Copy: "+key+"\nX-Copy: other\nReferer: https://a.test/?k="+key+
		"\nTransfer-Encoding: chunked\nTrailer: X-Sum, X-Late, X-HTTP-Method-Override, keystile~tenant\nConnection: close\n\n3\nabc\n0\nX-Sum: 1\nX-Late: "+key+"\nX-HTTP-Method-Override: DELETE\nkeystile~tenant: victim\n\n", "")
	if err != nil {
		t.Fatal(err)
	}
	got := <-s.reached
	if fmt.Sprint(got.Header, got.Trailer) != "" && strings.Contains(fmt.Sprint(got.Header, got.Trailer), key) {
		t.Error("the upstream gets the key")
	}
	if lines := got.Header["X-Copy"]; len(lines) != 1 || lines[0] != "other" {
		t.Errorf("the other line of a name becomes %d lines", len(lines))
	}
	if got.Header["Referer"] != nil || got.Trailer.Get("X-Sum") != "1" {
		t.Errorf("Referer %v, trailer X-Sum %q", got.Header["Referer"] != nil, got.Trailer.Get("X-Sum"))
	}
	for name := range got.Trailer {
		if name != "X-Sum" && name != "X-Late" || len(got.Trailer["X-Late"]) > 0 {
			t.Errorf("the upstream gets the trailer %s", name)
		}
	}
}

// R5: CONNECT is refused, with a protocol too, by every version of HTTP that lets it
// come to a handler.
func TestConnect(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, vinr)
	conn, err := s.dialQUIC(context.Background(), "", &tls.Config{InsecureSkipVerify: true, ServerName: "api.vinr.com", NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	client := new(http3.Transport).NewClientConn(conn)
	for _, protocol := range []string{"websocket", "connect-udp"} {
		stream, err := client.OpenRequestStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r := newRequest(t, http.MethodConnect, "https://api.vinr.com/v1/payments", "X-Api-Key: "+key, "Sec-WebSocket-Version: 13")
		r.Proto = protocol
		if err := stream.SendRequestHeader(r); err != nil {
			t.Fatal(err)
		}
		response, err := stream.ReadResponse()
		if err != nil || response.StatusCode != http.StatusBadRequest {
			t.Errorf("HTTP/3, %s: %v %v", protocol, response, err)
		}
	}
	if response, err := s.raw("CONNECT api.vinr.com:443 HTTP/1.1\nHost: api.vinr.com:443\nX-Api-Key: "+key+"\n\n", preface); err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("HTTP/1.1: %v %v", response, err)
	}
	if len(s.reached) > 0 {
		t.Error("the upstream was reached")
	}
}

// R6: a request for another host than the one that the client asked for in the handshake
// is answered with 421, by every version of HTTP.
func TestServerName(t *testing.T) {
	h := newHome(t, "vinr")
	_, key := h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	s := start(t, h, []string{"vinr"}, func(s *server) string {
		return fmt.Sprintf("http://api.vinr.com, https://api.vinr.com, http://sandbox.api.vinr.com, https://sandbox.api.vinr.com {\n\tkeystile vinr\n\treverse_proxy %s\n}\n", s.upstream.Listener.Addr())
	})
	s.ready("sandbox.api.vinr.com")
	for name, want := range map[string]int{"api.vinr.com": 200, "API.vinr.com": 200, "sandbox.api.vinr.com": 421} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: name}
		one, two := s.client().Transport.(*http.Transport), s.clientOf("h2")
		one.TLSClientConfig.ServerName, two.TLSClientConfig.ServerName = name, name
		three := &http3.Transport{TLSClientConfig: config, Dial: s.dialQUIC}
		for version, client := range map[int]http.RoundTripper{1: one, 2: two, 3: three} {
			r, err := client.RoundTrip(newRequest(t, "GET", "https://api.vinr.com/v1/payments", "X-Api-Key: "+key))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if r.StatusCode != want || r.ProtoMajor != version {
				t.Errorf("server name %s, HTTP/%d: %d by HTTP/%d, not %d", name, version, r.StatusCode, r.ProtoMajor, want)
			}
		}
		three.Close()
		one.CloseIdleConnections()
		two.CloseIdleConnections()
	}
}
