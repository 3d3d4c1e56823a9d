package caddymodule

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Whoever has left stands in no list: a request that has ended is not ended again, by
// which another one on its connection would be.
func TestLeaving(t *testing.T) {
	u := new(underWay)
	var all []*response
	for range 500 {
		a := new(response)
		a.enter(u)
		all = append(all, a)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, a := range all {
		a.leave()
		left := 0
		for l := range u {
			for r := u[l].first; r != nil; r = r.next {
				left++
			}
		}
		if left != len(all)-i-1 {
			t.Fatalf("%d stand in the lists after %d of %d have left", left, i+1, len(all))
		}
	}
}

type hijackable struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.conn, nil, nil }

// A WebSocket whose key ended before its connection was given away is cut.
func TestHijackAfterTheEnd(t *testing.T) {
	here, there := net.Pipe()
	a := &response{webSocket: true}
	a.ResponseWriter = &hijackable{httptest.NewRecorder(), here}
	a.fail(errEnded)
	a.abort()
	if conn, _, err := a.Hijack(); conn != nil || !errors.Is(err, errEnded) {
		t.Errorf("%v, %v", conn, err)
	}
	there.SetDeadline(time.Now().Add(time.Minute))
	if _, err := there.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is open: %v", err)
	}
}
