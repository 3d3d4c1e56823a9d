package main_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
)

// eventWait is how long a test waits for what has to happen: long, because no verdict
// hangs on it.
const eventWait = 60 * time.Second

// TestEdge shows what a real Envoy makes of requests, in one process: the filter
// takes seconds to compile.
func TestEdge(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"plain HTTP", r.plainHTTP},
		{"another TLS end", r.front},
		{"key elsewhere", r.keyElsewhere},
		{"names", r.names},
		{"trailers", r.trailers},
		{"trailers of requests that waited", r.trailersAfterWaiting},
		{"WebSocket", r.webSocket},
		{"WebSocket that the upstream refuses", r.webSocketRefused},
		{"upgrades", r.upgrades},
		{"extended CONNECT", r.extendedConnect},
		{"101 that nobody asked for", r.unasked101},
		{"limit of what is under way", r.underWay},
		{"early data", r.earlyData},
	} {
		t.Run(tt.name, tt.run)
		r.wire.quiet(t)
	}
}

// rig is one Envoy with all the listeners that the tests of [TestEdge] need. Paths at
// and below /wire go to wire, those below /second to an upstream of HTTP/2.
type rig struct {
	*edge
	id, key, otherKey string
	wire              *wire
	second            chan http.Header // trailers of requests at the upstream of HTTP/2
	quic, brief       string
	waiting           []*waiting
}

func newRig(t *testing.T) *rig {
	t.Helper()
	a := newAPI(t, "shop", "api.test")
	r := &rig{wire: newWire(t), second: make(chan http.Header, 100), quic: freeAddress(t), brief: freeAddress(t)}
	r.id, r.key = a.key()
	_, r.otherKey = a.key()
	clusters := []envoy.Object{
		upstreamOf("wire", r.wire.address, "http_protocol_options", envoy.Object{"enable_trailers": true}),
		upstreamOf("second", r.newSecond(t), "http2_protocol_options", envoy.Object{}),
	}
	for _, name := range []string{"held", "stopped"} {
		w := newWaiting(t, name)
		r.waiting = append(r.waiting, w)
		clusters = append(clusters, envoy.Cluster(name, w.origin.address))
	}
	r.edge = start(t, envoy.Object{"bundles": envoy.Object{"shop": a.inline()}}, options{
		hcm: upgrading, clusters: clusters, listeners: r.listeners,
		routes: append([]envoy.Object{
			{"match": envoy.Object{"prefix": "/wire"}, "route": envoy.Object{"cluster": "wire"}},
			{"match": envoy.Object{"prefix": "/second"}, "route": envoy.Object{"cluster": "second"}},
		}, envoy.To("upstream")...),
	})
	return r
}

// newSecond starts the upstream of HTTP/2.
func (r *rig) newSecond(t *testing.T) (address string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		r.second <- q.Trailer
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// upgrading lets trailers, WebSockets and extended CONNECT reach the filter.
func upgrading(manager envoy.Object) {
	manager["http_protocol_options"].(envoy.Object)["enable_trailers"] = true
	manager["http2_protocol_options"] = envoy.Object{"allow_connect": true}
	if manager["upgrade_configs"] == nil {
		manager["upgrade_configs"] = []envoy.Object{{"upgrade_type": "websocket"}}
	}
}

// listeners are one of HTTP/3, one that ends streams soon, and those whose requests
// wait for nodes.
func (r *rig) listeners(dir string, routes, filters []envoy.Object) []envoy.Object {
	out := []envoy.Object{
		envoy.QUIC("quic", r.quic, dir, routes, filters),
		envoy.Listener("brief", r.brief, dir, routes, filters, func(manager envoy.Object) {
			upgrading(manager)
			manager["common_http_protocol_options"] = envoy.Object{"max_stream_duration": "2s"}
		}),
	}
	for _, w := range r.waiting {
		out = append(out, envoy.Listener(w.name, w.address, dir, routes, []envoy.Object{w.filter(), envoy.Router()}, upgrading))
	}
	return out
}

// waiting is a listener whose requests wait for nodes until they are let go.
type waiting struct {
	name, address string
	api           *api
	origin        *origin
	asked         chan struct{} // for a node
	shut          atomic.Pointer[chan struct{}]
}

func newWaiting(t *testing.T, name string) *waiting {
	w := &waiting{name: name, address: freeAddress(t), api: newAPI(t, name, "api.test"), asked: make(chan struct{}, 1)}
	w.hold()
	w.letGo() // the policy comes by the same path
	w.origin = newOrigin(t, w.api.dir)
	files := http.FileServer(http.Dir(w.api.dir))
	w.origin.set(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/node/") {
			select {
			case w.asked <- struct{}{}:
			default:
			}
			select {
			case <-*w.shut.Load():
			case <-r.Context().Done():
			}
		}
		files.ServeHTTP(rw, r)
	})
	return w
}

// letGo lets nodes come.
func (w *waiting) letGo() { close(*w.shut.Load()) }

// hold makes nodes wait.
func (w *waiting) hold() {
	shut := make(chan struct{})
	w.shut.Store(&shut)
	for len(w.asked) > 0 {
		<-w.asked
	}
}

// filter is the listener's own. By itself Envoy holds everything back behind headers
// that wait; where it is told not to, the filter sees body and trailers before the
// decision.
func (w *waiting) filter() envoy.Object {
	module, _ := envoy.Module()
	bundle := w.api.over(w.name, w.name, w.name) // for a machine that takes its time
	plugin, _ := json.Marshal(envoy.Object{"bundles": envoy.Object{w.name: bundle}})
	filter := envoy.Filter(module, string(plugin))
	config := filter["typed_config"].(envoy.Object)["config"].(envoy.Object)
	config["name"], config["root_id"], config["allow_on_headers_stop_iteration"] = w.name, w.name, w.name == "stopped"
	return filter
}

// ask sends a request with a new key until it waits for a node: at first Envoy may not
// have heard of the key. answered is closed when an answer begins.
func (w *waiting) ask(t testing.TB, request func(key string) string) (c *conn, answered <-chan struct{}) {
	t.Helper()
	w.hold()
	_, key := w.api.key()
	for begin := time.Now(); time.Since(begin) < eventWait; {
		c := dial(t, w.address, "http/1.1")
		c.send(request(key))
		answer := make(chan struct{})
		go func() {
			c.in.Peek(1)
			close(answer)
		}()
		select {
		case <-w.asked:
			return c, answer
		case <-answer:
			c.Close()
		}
	}
	t.Fatalf("%s: no request waits for a node", w.name)
	return nil, nil
}

// serves waits until the listener has its bundle, with all nodes of a first key: from
// then on only those of new keys are missing.
func (w *waiting) serves(t testing.TB) {
	t.Helper()
	_, key := w.api.key()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c := dial(t, w.address, "http/1.1")
		c.send(headWith(key, "GET", "/") + "\r\n")
		response, _ := c.answer()
		c.Close()
		if response.StatusCode == http.StatusOK {
			return
		}
		if time.Since(begin) > eventWait {
			t.Fatalf("%s does not serve a good key: %d", w.name, response.StatusCode)
		}
	}
}

// upstreamOf is a cluster with options of one version of HTTP.
func upstreamOf(name, address, version string, options envoy.Object) envoy.Object {
	c := envoy.Cluster(name, address)
	c["typed_extension_protocol_options"] = envoy.Object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.Object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": envoy.Object{version: options},
	}}
	return c
}

// wire is an upstream of HTTP/1.1 that shows every byte that it gets.
type wire struct {
	address string
	begun   chan string  // the target of each request, when its head has come
	arrived chan arrival // each request, when all of it has come
}

// arrival is what came on a connection since the last request: one request, or what
// is none.
type arrival struct {
	request *http.Request // nil where it is none
	bytes   string
}

func newWire(t testing.TB) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	w := &wire{address: l.Addr().String(), begun: make(chan string, 1000), arrived: make(chan arrival, 1000)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go w.serve(conn)
		}
	}()
	return w
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"

// serve answers with 200, or with 101 at some paths.
func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	var got bytes.Buffer
	in := bufio.NewReader(io.TeeReader(conn, &got))
	for {
		request, err := http.ReadRequest(in)
		if err != nil {
			if got.Len() > 0 {
				w.arrived <- arrival{bytes: got.String()}
			}
			return
		}
		w.begun <- request.URL.Path
		io.Copy(io.Discard, request.Body)
		w.arrived <- arrival{request, got.String()}
		got.Reset()
		switch request.URL.Path {
		case "/wire/switch":
			io.WriteString(conn, switching)
			io.Copy(conn, in) // whatever it is: back
			return
		case "/wire/unasked":
			io.WriteString(conn, switching) // and goes on
		default:
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nupstream")
		}
	}
}

// next is the request that came next: exactly one, with nothing behind it.
func (w *wire) next(t testing.TB) arrival {
	t.Helper()
	a := await(t, w.arrived, "a request at the upstream")
	if a.request == nil {
		t.Fatalf("this is no request: %q", a.bytes)
	}
	if heads := strings.Count(a.bytes, " HTTP/1.1\r\n"); heads != 1 || strings.Contains(a.bytes, "PRI * HTTP/2") {
		t.Errorf("%d requests: %q", heads, a.bytes)
	}
	return a
}

// quiet says that nothing came that nobody has asked for.
func (w *wire) quiet(t testing.TB) {
	t.Helper()
	select {
	case a := <-w.arrived:
		t.Errorf("the upstream got this as well: %q", a.bytes)
	default:
	}
}

func await[T any](t testing.TB, events <-chan T, what string) T {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(eventWait):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// conn is a client's connection.
type conn struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

// dial connects with a listener; protocol is "" for plain HTTP, or what TLS
// negotiates.
func dial(t testing.TB, address, protocol string) *conn {
	t.Helper()
	var c net.Conn
	var err error
	if protocol == "" {
		c, err = net.Dial("tcp", address)
	} else {
		c, err = tls.Dial("tcp", address, &tls.Config{ServerName: "api.test", InsecureSkipVerify: true, NextProtos: []string{protocol}})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(eventWait))
	return &conn{c, t, bufio.NewReader(c)}
}

func (c *conn) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads the next answer.
func (c *conn) answer() (*http.Response, string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		return response, ""
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response, string(body)
}

// rest reads until the other side closes the connection.
func (c *conn) rest() string {
	c.t.Helper()
	got, err := io.ReadAll(c.in)
	if err != nil {
		c.t.Errorf("the connection stays open: %v, after %q", err, got)
	}
	return string(got)
}

// ask sends one request over HTTPS by HTTP/1.1 and gives the answer's status.
func (r *rig) ask(t testing.TB, request string) int {
	t.Helper()
	c := dial(t, r.https, "http/1.1")
	c.send(request)
	response, _ := c.answer()
	c.Close()
	return response.StatusCode
}

// head is the head of a request with the key, without its end.
func (r *rig) head(method, path string, lines ...string) string {
	return headWith(r.key, method, path, lines...)
}

func headWith(key, method, path string, lines ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer %s\r\n%s", method, path, key, strings.Join(append(lines, ""), "\r\n"))
}

// certificates is a folder with a certificate.
func (r *rig) certificates(t *testing.T) string {
	dir := t.TempDir()
	if err := certificate.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
