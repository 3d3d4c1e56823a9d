package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

// probe is a request as no client would send it, byte by byte, or as the fields of
// HTTP/2. "KEY" in it stands for a good key.
type probe struct {
	name   string
	raw    string      // HTTP/1
	fields [][2]string // HTTP/2
	plain  bool        // without TLS
}

const good = "GET /v1/payments HTTP/1.1\r\nHost: api.vinr.com\r\nX-Api-Key: KEY\r\n"

func h2(fields ...string) [][2]string {
	var out [][2]string
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		out = append(out, [2]string{f[:i], f[i+2:]})
	}
	return out
}

var probes = []probe{
	{name: "good", raw: good + "\r\n"},
	{name: "Host twice, the same", raw: good + "Host: api.vinr.com\r\n\r\n"},
	{name: "Host twice, another", raw: good + "Host: sandbox.api.vinr.com\r\n\r\n"},
	{name: "no Host", raw: "GET /v1/payments HTTP/1.1\r\nX-Api-Key: KEY\r\n\r\n"},
	{name: "empty Host", raw: "GET /v1/payments HTTP/1.1\r\nHost:\r\nX-Api-Key: KEY\r\n\r\n"},
	{name: "Host with userinfo", raw: strings.Replace(good, "api.vinr.com", "x@api.vinr.com", 1) + "\r\n"},
	{name: "absolute form", raw: strings.Replace(good, "GET /", "GET https://api.vinr.com/", 1) + "\r\n"},
	{name: "absolute form of plain HTTP", raw: strings.Replace(good, "GET /", "GET http://api.vinr.com/", 1) + "\r\n"},
	{name: "absolute form of another host", raw: strings.Replace(good, "GET /", "GET https://sandbox.api.vinr.com/", 1) + "\r\n"},
	{name: "absolute form with another Host", raw: "GET https://api.vinr.com/v1/payments HTTP/1.1\r\nHost: evil.example\r\nX-Api-Key: KEY\r\n\r\n"},
	{name: "two keys", raw: good + "X-Api-Key: KEY\r\n\r\n"},
	{name: "two keys in one line", raw: strings.Replace(good, "KEY", "KEY,KEY", 1) + "\r\n"},
	{name: "two sources", raw: good + "Authorization: Bearer KEY\r\n\r\n"},
	{name: "key in an alias beside", raw: good + "X_Api_Key: KEY\r\n\r\n"},
	{name: "key in an alias alone", raw: strings.Replace(good, "X-Api-Key", "X_Api_Key", 1) + "\r\n"},
	{name: "spaces around the key", raw: strings.Replace(good, "KEY", "  KEY  ", 1) + "\r\n"},
	{name: "tab before the key", raw: strings.Replace(good, ": KEY", ":\tKEY", 1) + "\r\n"},
	{name: "folded key", raw: strings.Replace(good, ": KEY", ":\r\n KEY", 1) + "\r\n"},
	{name: "folded behind the key", raw: strings.Replace(good, "KEY\r\n", "KEY\r\n x\r\n", 1) + "\r\n"},
	{name: "key and obs-text", raw: strings.Replace(good, "KEY", "KEY\xe9", 1) + "\r\n"},
	{name: "key and NUL", raw: strings.Replace(good, "KEY", "KEY\x00", 1) + "\r\n"},
	{name: "space before the colon", raw: strings.Replace(good, "X-Api-Key:", "X-Api-Key :", 1) + "\r\n"},
	{name: "bare line ends", raw: strings.ReplaceAll(good+"\r\n", "\r\n", "\n")},
	{name: "bare CR", raw: strings.Replace(good, "KEY", "KEY\rX: y", 1) + "\r\n"},
	{name: "length and chunks", raw: strings.Replace(good, "GET", "POST", 1) + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "two lengths", raw: strings.Replace(good, "GET", "POST", 1) + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n"},
	{name: "signed length", raw: strings.Replace(good, "GET", "POST", 1) + "Content-Length: +0\r\n\r\n"},
	{name: "chunks twice", raw: strings.Replace(good, "GET", "POST", 1) + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "another encoding", raw: strings.Replace(good, "GET", "POST", 1) + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
	{name: "HTTP/1.0", raw: strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n"},
	{name: "HTTP/1.9", raw: strings.Replace(good, "HTTP/1.1", "HTTP/1.9", 1) + "\r\n"},
	{name: "HTTP/3.0", raw: strings.Replace(good, "HTTP/1.1", "HTTP/3.0", 1) + "\r\n"},
	{name: "HTTP/0.9", raw: "GET /v1/payments\r\n\r\n"},
	{name: "no path", raw: strings.Replace(good, "GET /v1/payments", "GET ", 1) + "\r\n"},
	{name: "asterisk", raw: strings.Replace(good, "/v1/payments", "*", 1) + "\r\n"},
	{name: "OPTIONS of all", raw: strings.Replace(good, "GET /v1/payments", "OPTIONS *", 1) + "\r\n"},
	{name: "two spaces before the path", raw: strings.Replace(good, "GET ", "GET  ", 1) + "\r\n"},
	{name: "space in the path", raw: strings.Replace(good, "/v1/payments", "/v1/pay ments", 1) + "\r\n"},
	{name: "path without a slash", raw: strings.Replace(good, "/v1/payments", "v1/payments", 1) + "\r\n"},
	{name: "fragment", raw: strings.Replace(good, "/v1/payments", "/v1/payments#x", 1) + "\r\n"},
	{name: "dot segments", raw: strings.Replace(good, "/v1/payments", "/v1/x/../payments", 1) + "\r\n"},
	{name: "escaped slash", raw: strings.Replace(good, "/v1/payments", "/v1%2fpayments", 1) + "\r\n"},
	{name: "authority form", raw: strings.Replace(good, "GET /v1/payments", "CONNECT api.vinr.com:443", 1) + "\r\n"},
	{name: "WebSocket", raw: good + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"},
	{name: "WebSocket without a key", raw: strings.Replace(good, "X-Api-Key: KEY\r\n", "", 1) + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"},
	{name: "h2c without a key", raw: strings.Replace(good, "X-Api-Key: KEY\r\n", "", 1) + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"},
	{name: "identity by Connection", raw: good + "Connection: close, Keystile-Key-Id\r\nKeystile-Key-Id: admin\r\n\r\n"},
	{name: "key in a trailer", raw: "POST /v1/payments HTTP/1.1\r\nHost: api.vinr.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Api-Key\r\n\r\n0\r\nX-Api-Key: KEY\r\n\r\n"},
	{name: "override of the method", raw: good + "X-HTTP-Method-Override: DELETE\r\n\r\n"},
	{name: "original URL", raw: good + "X-Original-URL: /v1/api_keys\r\nX-Rewrite-URL: /v1/api_keys\r\nX-Envoy-Original-Path: /v1/api_keys\r\n\r\n"},
	{name: "a long line", raw: good + "X-Long: " + strings.Repeat("x", 200_000) + "\r\n\r\n"},
	{name: "many lines", raw: good + strings.Repeat("X-Many: x\r\n", 300) + "\r\n"},

	{name: "plain HTTP", plain: true, raw: good + "\r\n"},
	{name: "plain HTTP that says it is not", plain: true, raw: good + "X-Forwarded-Proto: https\r\nForwarded: proto=https\r\n\r\n"},
	{name: "plain HTTP in absolute form", plain: true, raw: strings.Replace(good, "GET /", "GET https://api.vinr.com/", 1) + "X-Forwarded-Proto: https\r\n\r\n"},
	{name: "plain HTTP without a key", plain: true, raw: strings.Replace(good, "X-Api-Key: KEY\r\n", "", 1) + "\r\n"},

	{name: "h2 good", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY")},
	{name: "h2 scheme of plain HTTP", fields: h2(":method: GET", ":scheme: http", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY")},
	{name: "h2 two keys", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY", "x-api-key: KEY")},
	{name: "h2 Host alone", fields: h2(":method: GET", ":scheme: https", ":path: /v1/payments", "host: api.vinr.com", "x-api-key: KEY")},
	{name: "h2 two authorities", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":authority: sandbox.api.vinr.com", ":path: /v1/payments", "x-api-key: KEY")},
	{name: "h2 two paths", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", ":path: /v1/refunds", "x-api-key: KEY")},
	{name: "h2 pseudo-header behind", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", "x-api-key: KEY", ":path: /v1/payments")},
	{name: "h2 unknown pseudo-header", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", ":x: y", "x-api-key: KEY")},
	{name: "h2 upper case", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "X-Api-Key: KEY")},
	{name: "h2 no path", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", "x-api-key: KEY")},
	{name: "h2 empty path", fields: [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.vinr.com"}, {":path", ""}, {"x-api-key", "KEY"}}},
	{name: "h2 asterisk", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: *", "x-api-key: KEY")},
	{name: "h2 Connection", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "connection: close", "x-api-key: KEY")},
	{name: "h2 chunks", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "transfer-encoding: chunked", "x-api-key: KEY")},
	{name: "h2 CONNECT", fields: h2(":method: CONNECT", ":authority: api.vinr.com:443", "x-api-key: KEY")},
	{name: "h2 extended CONNECT", fields: h2(":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY")},
	{name: "h2 spaces around the key", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key:  KEY ")},
	{name: "h2 line end in the key", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY\r\nx: y")},
	{name: "h2 method that is a request", fields: h2(":method: GET /x HTTP/1.1", ":scheme: https", ":authority: api.vinr.com", ":path: /v1/payments", "x-api-key: KEY")},
	{name: "h2 absolute form", fields: h2(":method: GET", ":scheme: https", ":authority: api.vinr.com", ":path: https://api.vinr.com/v1/payments", "x-api-key: KEY")},
}

// outcome is what became of a probe.
type outcome struct {
	status  int    // 0 where the connection was closed
	reason  string // Keystile's, or "" where the server's parser answered
	reached string // what the upstream got, or ""
}

func (o outcome) String() string {
	switch {
	case o.reached != "":
		return "goes on as " + o.reached
	case o.reason != "":
		return fmt.Sprintf("denied: %s (%d)", o.reason, o.status)
	case o.status != 0:
		return fmt.Sprintf("refused by the parser (%d)", o.status)
	}
	return "closed"
}

// refused says whether the server's own parser refused the probe.
func (o outcome) refused() bool { return o.reached == "" && o.reason == "" }

// agrees says whether two hosts make the same of a probe: where neither refuses it
// by itself, both let it go on alike, or deny it for one reason.
func (o outcome) agrees(other outcome) bool {
	return o.refused() || other.refused() || o.reached == other.reached && o.reason == other.reason
}

// runProbes sends all probes through Caddy and Envoy, and says where they do not
// agree.
func runProbes() (passed, failed int, err error) {
	document, err := policies.Policy("vinr")
	if err != nil {
		return 0, 0, err
	}
	source, err := policies.Table("vinr")
	if err != nil {
		return 0, 0, err
	}
	t, err := table.Load("vinr", source)
	if err != nil {
		return 0, 0, err
	}
	f, err := t.Issue("vinr", document)
	if err != nil {
		return 0, 0, err
	}
	caddy, err := startCaddy(f)
	if err != nil {
		return 0, 0, startFailed(caddy, err)
	}
	envoy, err := startEnvoy(f, 1, false)
	if err != nil {
		return 0, 0, errors.Join(startFailed(envoy, err), caddy.Close())
	}
	key := f.Secret("secret")
	for _, p := range probes {
		a, err := caddy.probe(p, key)
		if err != nil {
			return passed, failed, fmt.Errorf("%s: %w", p.name, err)
		}
		b, err := envoy.probe(p, key)
		if err != nil {
			return passed, failed, fmt.Errorf("%s: %w", p.name, err)
		}
		// What is good goes on by both, and plain HTTP by none.
		wrong := !a.agrees(b)
		if strings.HasSuffix(p.name, "good") {
			wrong = wrong || a.reached == "" || b.reached == ""
		} else if p.plain {
			wrong = wrong || a.reached != "" || b.reached != ""
		}
		if wrong {
			failed++
			fmt.Printf("FAIL %s: Caddy: %s; Envoy: %s\n", p.name, a, b)
			continue
		}
		passed++
	}
	return passed, failed, errors.Join(caddy.Close(), envoy.Close())
}

func (s *server) probe(p probe, key string) (o outcome, err error) {
	address := s.https
	if p.plain {
		address = s.http
	}
	protocol := "http/1.1"
	if p.fields != nil {
		protocol = "h2"
	}
	var conn net.Conn
	if conn, err = net.DialTimeout("tcp", address, timeout); err != nil {
		return o, err
	}
	defer func() { conn.Close() }()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if !p.plain {
		secure := tls.Client(conn, &tls.Config{ServerName: "api.vinr.com", InsecureSkipVerify: true, NextProtos: []string{protocol}})
		if err := secure.Handshake(); err != nil {
			return o, err
		}
		conn = secure
	}
	before := s.upstream.count()
	var header map[string][]string
	if p.fields != nil {
		o.status, header = probe2(conn, p.fields, key)
	} else {
		o.status, header = probe1(conn, strings.ReplaceAll(p.raw, "KEY", key))
	}
	if s.upstream.count() > before {
		r := s.upstream.last()
		// What Keystile promises of it, and no more: hosts add lines of their own.
		o.reached = fmt.Sprintf("%s %s, key ID %q, override %q, key lines %d", r.Method, r.Target, r.Header["Keystile-Key-Id"],
			r.Header["X-Http-Method-Override"], len(r.Header["X-Api-Key"])+len(r.Header["X_Api_Key"])+len(r.Header["Authorization"]))
		return o, nil
	}
	if ids := header["Request-Id"]; len(ids) == 1 {
		o.reason = s.log.reason(ids[0])
	}
	return o, nil
}

func probe1(conn net.Conn, raw string) (status int, header map[string][]string) {
	if _, err := conn.Write([]byte(raw)); err != nil {
		return 0, nil
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil
	}
	response.Body.Close()
	return response.StatusCode, response.Header
}

func probe2(conn net.Conn, fields [][2]string, key string) (status int, header map[string][]string) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: strings.ReplaceAll(f[1], "KEY", key)})
	}
	conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	if errors.Join(framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})) != nil {
		return 0, nil
	}
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var c collected
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return 0, nil
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0, nil
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if c.field(field.Name, field.Value) != nil {
					return 0, nil
				}
			}
			return c.Status, c.Header
		}
	}
}
