package caddymodule_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/keystile/keystile/internal/control"
)

var reloads = flag.Duration("reloads", 0, "how long TestReloadUnderLoad reloads, once a second; 0 is 10s, without a pause")

// A configuration is replaced again and again, with another bundle's block each
// time, so that the edge is another one too. Requests that are on their way go on
// with the edge that they came to: none fails, and nothing of the edges is left.
func TestReloadUnderLoad(t *testing.T) {
	h := newHome(t, "vinr")
	keys := make([]string, 50)
	for i := range keys {
		_, keys[i] = h.create("vinr", control.NewKey{Kind: "secret", Environment: "live"})
	}
	site := func(*server) string {
		return "http://api.vinr.com, https://api.vinr.com {\n\troute {\n\t\thold\n\t\tkeystile vinr\n\t\trespond ok\n\t}\n}\n"
	}
	s := start(t, h, []string{"vinr"}, site)
	s.within("in use", 200, "X-Api-Key: "+keys[0])
	load := s.traffic(64, keys)
	defer load.end()

	length, pause := *reloads, time.Second
	if length == 0 {
		length, pause = 10*time.Second, 0
	}
	var warm usage
	done := 0
	for begin := time.Now(); time.Since(begin) < length || done < 8; done++ {
		change := func(config string) string {
			// No record fits, so that every request writes into the cache.
			return strings.Replace(config, "\tfile ", fmt.Sprintf("\trecord_cache 1KiB\n\tmax_age %dm\n\tfile ", 600+done), 1)
		}
		if err := s.reload(h, change, site, "vinr"); err != nil {
			t.Fatal(err)
		}
		if failed := load.failed.Load(); failed != nil {
			t.Fatalf("after %d reloads: %s", done+1, *failed)
		}
		if warm == (usage{}) && time.Since(begin) > length/4 && done >= 3 {
			warm = settled(t, usage{})
		}
		time.Sleep(pause)
	}
	last := settled(t, warm)
	t.Logf("%d reloads, %d requests; after a quarter of them %+v, at the end %+v", done, load.asked.Load(), warm, last)
	if n := load.asked.Load(); n < int64(done) {
		t.Errorf("only %d requests were made", n)
	}
}

// hold is a handler that takes its time, so that a configuration's requests last
// longer than the configuration.
type hold struct{}

func (hold) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.hold", New: func() caddy.Module { return new(hold) }}
}

func (hold) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	time.Sleep(rand.N(20 * time.Millisecond))
	return next.ServeHTTP(w, r)
}

func init() {
	caddy.RegisterModule(hold{})
	httpcaddyfile.RegisterHandlerDirective("hold", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return hold{}, nil })
}

// traffic is clients that ask all the time.
type traffic struct {
	asked   atomic.Int64
	failed  atomic.Pointer[string] // the first one that was not allowed
	stop    chan struct{}
	clients sync.WaitGroup
}

func (s *server) traffic(clients int, keys []string) *traffic {
	l := &traffic{stop: make(chan struct{})}
	for i := range clients {
		client := s.client()
		client.Timeout = time.Minute
		l.clients.Go(func() {
			defer client.CloseIdleConnections()
			for n := i; ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if status, err := ask(client, newRequest(s.t, "GET", "https://api.vinr.com/v1/payments", "X-Api-Key: "+keys[n%len(keys)])); status != 200 {
					text := fmt.Sprint("status ", status, ": ", err)
					l.failed.CompareAndSwap(nil, &text)
				}
				l.asked.Add(1)
			}
		})
	}
	return l
}

// ask returns the status of the answer, and its body if that is an error.
func ask(client *http.Client, r *http.Request) (status int, err error) {
	response, err := again(client, r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, errors.New(string(body))
}

func (l *traffic) end() {
	close(l.stop)
	l.clients.Wait()
}

// usage is what a process has of what it can run out of.
type usage struct{ goroutines, threads, descriptors, mebibytes int }

func used(t *testing.T) usage {
	t.Helper()
	count := func(dir string) int {
		entries, err := os.ReadDir("/proc/self/" + dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), count("task"), count("fd"), int(m.HeapAlloc >> 20)}
}

// settled is what is used once it is no more than before, and some that comes and
// goes. The zero value is before the first time. What has ended goes at the next
// collections.
func settled(t *testing.T, before usage) (now usage) {
	t.Helper()
	if before == (usage{}) {
		for range 5 {
			now = used(t)
		}
		return now
	}
	for begin := time.Now(); ; {
		now = used(t)
		if now.goroutines <= before.goroutines+40 && now.threads <= before.threads+10 && now.descriptors <= before.descriptors+20 &&
			now.mebibytes <= before.mebibytes*5/4+8 {
			return now
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("it has grown from %+v to %+v", before, now)
		}
	}
}
