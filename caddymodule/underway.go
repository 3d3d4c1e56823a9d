package caddymodule

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/keystile/keystile/core"
)

// A request that was allowed ends early if its key is revoked or expires meanwhile: a
// WebSocket, or a response that takes longer than youngest. Every request under way
// stands in a list of its bundle's name, which outlives reloads; the edge goes through
// it whenever it looks at its bundle.

// youngest is the age below which a response is left to end by itself.
const youngest = time.Second

// underWay has the requests under way of all bundles of one name, in several lists so
// that requests on many cores do not wait for each other.
type underWay [32]struct {
	underWayList
	_ [48]byte // a cache line each
}

type underWayList struct {
	mu    sync.Mutex
	first *response
}

var allUnderWay sync.Map // bundle name → *underWay

func underWayOf(bundle string) *underWay {
	u, _ := allUnderWay.LoadOrStore(bundle, new(underWay))
	return u.(*underWay)
}

// response is the writer that the next handlers get, and the request's place in the
// list.
type response struct {
	caddyhttp.ResponseWriterWrapper
	webSocket bool

	// In the list, and guarded by it.
	list           *underWayList
	previous, next *response
	since          time.Time
	hold           core.Hold
	cancel         context.CancelFunc // where deadlines do not end the request

	mu     sync.Mutex
	conn   net.Conn // of a WebSocket
	broken error    // why nothing more is written
}

var (
	errEnded    = errors.New("the request's key was revoked or has expired")
	errSwitched = errors.New("the upstream switches to a protocol that nobody asked for")
)

// serve lets the next handler answer, and ends that early if the key ends.
func (x *exchange) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	a := &x.response
	a.ResponseWriter, a.webSocket = w, x.decision.WebSocket()
	if hold, ok := x.decision.Hold(); ok {
		if r.ProtoMajor == 3 { // its deadlines end a write, and not the request
			var ctx context.Context
			ctx, a.cancel = context.WithCancel(r.Context())
			defer a.cancel()
			r = r.WithContext(ctx)
		}
		a.hold = hold
		a.enter(x.handler.underWay)
		defer a.leave()
	}
	defer x.tellEarlyEnd() // also where the next handler panics, as proxies do
	err := next.ServeHTTP(a, r)
	if a.failed() != nil {
		panic(http.ErrAbortHandler) // the server cuts the connection, or resets the stream
	}
	return err
}

func (x *exchange) tellEarlyEnd() {
	broken := x.response.failed()
	if broken == nil {
		return
	}
	id := ""
	if x.decision.Key != nil {
		id = x.decision.Key.ID
	}
	x.handler.logger.Warn("a request ends early", zap.String("bundle", x.handler.Bundle), zap.String("key_id", id), zap.Error(broken))
}

func (a *response) enter(u *underWay) {
	a.since = time.Now()
	a.list = &u[rand.Uint32()%uint32(len(u))].underWayList
	a.list.mu.Lock()
	defer a.list.mu.Unlock()
	if a.next = a.list.first; a.next != nil {
		a.next.previous = a
	}
	a.list.first = a
}

func (a *response) leave() {
	a.list.mu.Lock()
	defer a.list.mu.Unlock()
	if a.previous != nil {
		a.previous.next = a.next
	} else {
		a.list.first = a.next
	}
	if a.next != nil {
		a.next.previous = a.previous
	}
}

// end ends all requests whose key does not hold any more.
func (u *underWay) end(v *core.Verifier) {
	for i := range u {
		u[i].end(v)
	}
}

func (l *underWayList) end(v *core.Verifier) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := l.first; a != nil; a = a.next {
		if !a.webSocket && time.Since(a.since) < youngest {
			continue
		}
		if a.failed() == nil && v.Holds(&a.hold) {
			continue
		}
		// Again at every look, while it stands here: another handler may set a deadline
		// of its own.
		a.fail(errEnded)
		a.abort()
	}
}

// abort ends a request while it stands in the list. A read that runs into its
// deadline cancels a request of HTTP/1, a write one of HTTP/2.
func (a *response) abort() {
	if a.mu.Lock(); a.conn != nil {
		reset(a.conn)
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
	}
	// The server's own writer: those of handlers are not for use by two at once.
	w := a.ResponseWriter
	for inner, ok := w.(wrapper); ok; inner, ok = w.(wrapper) {
		w = inner.Unwrap()
	}
	past := time.Unix(1, 0)
	controller := http.NewResponseController(w)
	controller.SetReadDeadline(past)
	controller.SetWriteDeadline(past)
}

type wrapper interface{ Unwrap() http.ResponseWriter }

// reset closes a connection so that the other end sees that it was cut.
func reset(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// failed says why nothing more is written, or nil.
func (a *response) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.broken
}

// fail notes why nothing more is written.
func (a *response) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken == nil {
		a.broken = err
	}
}

// WriteHeader passes a status on, unless it would make the connection another
// protocol's than the request asked for.
func (a *response) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols && !a.webSocket {
		a.fail(errSwitched)
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

// Hijack gives the connection away for a WebSocket alone.
func (a *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if !a.webSocket {
		a.fail(errSwitched)
		return nil, nil, errSwitched
	}
	conn, buffered, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		reset(conn)
		return nil, nil, a.broken
	}
	a.conn = conn
	return conn, buffered, nil
}
