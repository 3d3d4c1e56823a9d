package main_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// tickets is a cache of sessions that says when it gets one.
type tickets struct {
	tls.ClientSessionCache
	came chan struct{}
}

func (c tickets) Put(name string, session *tls.ClientSessionState) {
	c.ClientSessionCache.Put(name, session)
	if session != nil {
		select {
		case c.came <- struct{}{}:
		default:
		}
	}
}

// earlyTries is how often a session is resumed at most until the server takes its
// early data.
const earlyTries = 10

// R4: what comes as early data is answered with 425 and goes nowhere.
func (r *rig) earlyData(t *testing.T) {
	for range earlyTries {
		cache := tickets{tls.NewLRUClientSessionCache(1), make(chan struct{}, 1)}
		if status, _ := r.overQUIC(t, cache, http.MethodGet); status != 200 {
			t.Fatalf("without early data: %d", status)
		}
		r.wire.next(t)
		await(t, cache.came, "a session to resume")
		status, early := r.overQUIC(t, cache, http3.MethodGet0RTT)
		switch {
		case early && status == http.StatusTooEarly:
			return
		case early:
			t.Fatalf("early data is answered with %d", status)
		case status == 200:
			r.wire.next(t) // the server took none, and the client sent it again
		default:
			t.Fatalf("without early data: %d", status)
		}
	}
	t.Errorf("the server took early data in none of %d tries", earlyTries)
}

// overQUIC sends a request on a connection of its own and says whether it went as
// early data.
func (r *rig) overQUIC(t *testing.T, cache tls.ClientSessionCache, method string) (status int, early bool) {
	t.Helper()
	var conn *quic.Conn
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{ServerName: "api.test", InsecureSkipVerify: true, ClientSessionCache: cache},
		Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (c *quic.Conn, err error) {
			conn, err = quic.DialAddrEarly(ctx, r.quic, tc, qc)
			return conn, err
		},
	}
	defer transport.Close()
	ctx, cancel := context.WithTimeout(t.Context(), eventWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "https://api.test/wire", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.key)
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	await(t, conn.HandshakeComplete(), "the handshake's end")
	return response.StatusCode, conn.ConnectionState().Used0RTT
}
