package main_test

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/keystile/keystile/internal/testing/envoy"
)

// R1, R2: over plain HTTP everything gets the same answer, byte for byte, and the
// connection is closed behind it. Nobody is invited to send a body.
func (r *rig) plainHTTP(t *testing.T) {
	const get = "GET /wire HTTP/1.1\r\nHost: api.test\r\n"
	sent := map[string]string{
		"nothing":           get + "\r\n",
		"a key":             get + "Authorization: Bearer " + r.key + "\r\n\r\n",
		"says it is HTTPS":  get + "X-Forwarded-Proto: https\r\nForwarded: proto=https\r\n\r\n",
		"WebSocket":         get + handshake + "\r\n",
		"another protocol":  get + "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
		"HTTP/2":            get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"a body":            "POST /wire HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
		"CONNECT":           "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
		"one more behind":   get + "\r\n" + get + "\r\n",
		"a trailer follows": "POST /wire HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
	}
	var mu sync.Mutex
	answers := make(map[string][]string)
	var group sync.WaitGroup
	for name, text := range sent {
		group.Go(func() {
			c := dial(t, r.http, "")
			c.send(text)
			answer := regexp.MustCompile(`(?m)^(date|request-id): .*\n`).ReplaceAllString(c.rest(), "")
			mu.Lock()
			answers[answer] = append(answers[answer], name)
			mu.Unlock()
		})
	}
	group.Wait()
	const want = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\ncontent-length: 133\r\nserver: envoy\r\nconnection: close\r\n\r\n" +
		`{"type":"about:blank","title":"Forbidden","status":403,"detail":"HTTPS is required. A key sent over plain HTTP is exposed: roll it."}`
	for answer, names := range answers {
		if answer != want {
			t.Errorf("%q: %q", names, answer)
		}
	}
}

// R1, R3: a proxy in front ends TLS. What it hands on in clear is refused whatever is
// written into it; by TLS it goes on.
func (r *rig) front(t *testing.T) {
	address, trusting := r.startFront(t)
	for _, front := range []string{address, trusting} {
		for _, lines := range []string{
			"", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1, 10.0.0.5\r\nX-Real-Ip: 10.0.0.5\r\n",
			"Forwarded: for=10.0.0.5;proto=https\r\nX-Forwarded-Ssl: on\r\nX-Envoy-External-Address: 10.0.0.5\r\nX-Forwarded-Client-Cert: By=x\r\n",
		} {
			for path, want := range map[string]int{"/clear": 403, "/clear2": 403, "/wire": 200} {
				c := dial(t, front, "http/1.1")
				c.send(r.head("GET", path) + lines + "\r\n")
				response, body := c.answer()
				c.Close()
				if response.StatusCode != want || want == 403 && !strings.Contains(body, "HTTPS is required") {
					t.Errorf("%s with %q: %d %s", path, lines, response.StatusCode, body)
				}
				if want == 200 {
					r.wire.next(t)
				}
			}
		}
	}
}

// startFront runs an Envoy without the filter that ends TLS at two addresses; behind
// the second it believes what it is told of who asks. It hands on what is below /clear
// by plain HTTP, by version 2 below /clear2, and the rest by TLS.
func (r *rig) startFront(t *testing.T) (address, trusting string) {
	address, trusting = freeAddress(t), freeAddress(t)
	dir := r.certificates(t)
	byTLS := envoy.Cluster("tls", r.https)
	byTLS["transport_socket"] = envoy.Object{"name": "tls", "typed_config": envoy.Object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "api.test",
	}}
	routes := append([]envoy.Object{
		{"match": envoy.Object{"prefix": "/clear2"}, "route": envoy.Object{"cluster": "clear2"}},
		{"match": envoy.Object{"prefix": "/clear"}, "route": envoy.Object{"cluster": "clear"}},
	}, envoy.To("tls")...)
	filters := []envoy.Object{envoy.Router()}
	process, err := envoy.Start(t.TempDir(), envoy.Object{"static_resources": envoy.Object{
		"listeners": []envoy.Object{
			envoy.Listener("front", address, dir, routes, filters, nil),
			envoy.Listener("trusting", trusting, dir, routes, filters, func(manager envoy.Object) { manager["use_remote_address"] = false }),
		},
		"clusters": []envoy.Object{byTLS, envoy.Cluster("clear", r.http), upstreamOf("clear2", r.http, "http2_protocol_options", envoy.Object{})},
	}}, 1, nil)
	t.Cleanup(func() { process.Close() })
	if err != nil {
		t.Fatal(err)
	}
	return address, trusting
}
