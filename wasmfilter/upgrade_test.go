package main_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// handshake is what opens a WebSocket.
const handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"

// R5: a WebSocket opens, as what it is and with who asks for it, and without the key.
func (r *rig) webSocket(t *testing.T) {
	c := dial(t, r.https, "http/1.1")
	c.send(r.head("GET", "/wire/switch", "Keystile-Key-Id: forged", "X-Note: "+r.key) + strings.Replace(handshake, "Upgrade\r\n", "Upgrade, Keystile-Key-Id\r\n", 1) + "\r\n")
	response, _ := c.answer()
	if response.StatusCode != 101 {
		t.Fatalf("status %d", response.StatusCode)
	}
	a := r.wire.next(t)
	r.noForgery(t, a)
	h := a.request.Header
	if h.Get("Keystile-Key-Id") != r.id || !strings.EqualFold(h.Get("Connection"), "Upgrade") || h.Get("Upgrade") != "websocket" {
		t.Errorf("the upstream got %q", a.bytes)
	}
	c.echo()
}

// echo says that bytes go to the upstream and back.
func (c *conn) echo() {
	c.t.Helper()
	c.send("ping")
	got := make([]byte, 4)
	if _, err := io.ReadFull(c.in, got); err != nil || string(got) != "ping" {
		c.t.Errorf("%q, %v", got, err)
	}
}

// What a client sends behind a handshake is no request of its own where the upstream
// does not open the WebSocket.
func (r *rig) webSocketRefused(t *testing.T) {
	c := dial(t, r.https, "http/1.1")
	c.send(r.head("GET", "/wire/x") + handshake + "\r\nGET /wire/smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n")
	if response, _ := c.answer(); response.StatusCode != 200 || !response.Close {
		t.Errorf("status %d, and the connection stays open", response.StatusCode)
	}
	r.wire.next(t)
	r.sentinel(t)
}

// sentinel sends one more request, which comes after whatever else was on its way.
func (r *rig) sentinel(t *testing.T) {
	t.Helper()
	if got := r.ask(t, r.head("GET", "/wire/sentinel")+"\r\n"); got != 200 {
		t.Errorf("one more request: %d", got)
	}
	if a := r.wire.next(t); a.request.URL.Path != "/wire/sentinel" {
		t.Errorf("the upstream got %q", a.bytes)
	}
}

// R5: other protocols are not offered to the upstream, nor what looks like a WebSocket
// and is none: either the request goes on as one like any other, or it is refused, by
// the filter or by Envoy (403), which knows no other type.
func (r *rig) upgrades(t *testing.T) {
	const preface = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	other := func(from, to string) string { return strings.Replace(handshake, from, to, 1) + "\r\n" }
	for name, tt := range map[string]struct {
		request string
		want    int
	}{
		"HTTP/2":             {r.head("GET", "/wire", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__") + "\r\n" + preface, 200},
		"not on this hop":    {r.head("GET", "/wire", "Upgrade: TLS/1.2", "Upgrade: websocket") + "\r\n", 200},
		"TLS":                {r.head("GET", "/wire") + other("websocket", "TLS/1.2"), 403},
		"in a list":          {r.head("GET", "/wire") + other("websocket", "websocket, h2c"), 403},
		"last of a list":     {r.head("GET", "/wire") + other("websocket", "h2c, websocket"), 403},
		"with a version":     {r.head("GET", "/wire") + other("websocket", "websocket/13"), 403},
		"twice":              {r.head("GET", "/wire", "Upgrade: websocket") + handshake + "\r\n", 403},
		"by POST":            {r.head("POST", "/wire") + handshake + "\r\n", 400},
		"with a body":        {r.head("GET", "/wire", "Content-Length: 4") + handshake + "\r\nbody", 400},
		"without its key":    {r.head("GET", "/wire") + other("Sec-WebSocket-Key", "X-Key"), 400},
		"without an API key": {strings.Replace(r.head("GET", "/wire"), r.key, "x", 1) + handshake + "\r\n", 401},
	} {
		if got := r.ask(t, tt.request); got != tt.want {
			t.Errorf("%s: %d", name, got)
		}
		if tt.want == 200 {
			if a := r.wire.next(t); a.request.Header.Get("Upgrade") != "" || a.request.Header.Get("Http2-Settings") != "" || a.request.Header.Get("Connection") != "" {
				t.Errorf("%s: the upstream got %q", name, a.bytes)
			}
		}
	}
	r.sentinel(t)
}

// extendedConnect asks for a WebSocket by HTTP/2 (RFC 8441), which Envoy makes a
// handshake of HTTP/1.1 before any filter sees it.
func (r *rig) extendedConnect(t *testing.T) {
	for _, more := range [][]string{nil, {"sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version", "13"}} {
		status := r.fields(t, append([]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "api.test", ":path", "/wire/switch",
			"authorization", "Bearer " + r.key}, more...))
		if status != "400" {
			t.Errorf("with %q: %s", more, status)
		}
	}
	r.sentinel(t)
}

// fields sends a request of HTTP/2 and gives the status of its answer.
func (r *rig) fields(t *testing.T, fields []string) (status string) {
	t.Helper()
	c := dial(t, r.https, "h2")
	c.send(http2.ClientPreface)
	framer := http2.NewFramer(c, c.in)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	framer.WriteSettings()
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: fields[1] != "CONNECT"}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return f.ErrCode.String()
		case *http2.GoAwayFrame:
			return f.ErrCode.String()
		}
	}
}

// R5: an upstream that changes the protocol unasked does not get the client's
// connection: what comes next there is a request, for the filter to decide.
func (r *rig) unasked101(t *testing.T) {
	c := dial(t, r.https, "http/1.1")
	c.send(r.head("GET", "/wire/unasked") + "\r\n")
	if response, _ := c.answer(); response.StatusCode != 101 || response.Header.Get("Upgrade") != "" {
		t.Errorf("status %d, %v", response.StatusCode, response.Header)
	}
	r.wire.next(t)
	c.send("GET /wire/x HTTP/1.1\r\nHost: api.test\r\n\r\n")
	if response, _ := c.answer(); response.StatusCode != 401 {
		t.Errorf("without a key afterwards: %d", response.StatusCode)
	}
	r.sentinel(t)
}

// What is under way ends by the listener's own limit.
func (r *rig) underWay(t *testing.T) {
	c := dial(t, r.brief, "http/1.1")
	c.send(r.head("GET", "/wire/switch") + handshake + "\r\n")
	if response, _ := c.answer(); response.StatusCode != 101 {
		t.Fatalf("status %d", response.StatusCode)
	}
	r.wire.next(t)
	c.echo()
	c.rest()
	if got := r.stat("http.brief.downstream_rq_max_duration_reached"); got != "1" {
		t.Errorf("%q streams were ended by the limit", got)
	}
}
