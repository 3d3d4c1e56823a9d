package plugin

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keystile/keystile/core/bundle"
)

// fetch is an object on its way. It is sent on the next tick, from the plugin's own
// context: what a request's context sends, nobody hears of once that has ended.
type fetch struct {
	limit   int
	origin  int // of the list
	tried   int
	begun   time.Time // zero before it is sent
	waiting []uint32  // requests
	done    func(requests []uint32, ok bool)
}

var errNotHere = errors.New("it has not been fetched")

// Node gives a node that has been fetched, as [bundle.NodeSource].
func (s *source) Node(h bundle.Hash) ([]byte, error) {
	if b, ok := s.raw[h]; ok {
		return b, nil
	}
	return nil, errNotHere
}

// keep keeps an object as it was fetched, and forgets the oldest.
func (s *source) keep(h bundle.Hash, b []byte) {
	if _, ok := s.raw[h]; ok {
		return
	}
	s.raw[h] = b
	s.order = append(s.order, h)
	for s.size += len(b); s.size > rawBytes; s.order = s.order[1:] {
		s.size -= len(s.raw[s.order[0]])
		delete(s.raw, s.order[0])
	}
}

// want fetches a node for a request, and says whether the request can wait for it.
func (s *source) want(h bundle.Hash, request uint32, done func(requests []uint32, ok bool)) bool {
	f := s.fetches[h]
	if f == nil {
		if len(s.fetches) >= maxFetches {
			return false
		}
		f = s.fetch(h, bundle.MaxLeaf, done)
	}
	if len(f.waiting) >= maxWaiting {
		return false
	}
	f.waiting = append(f.waiting, request)
	return true
}

func (s *source) fetch(h bundle.Hash, limit int, done func(requests []uint32, ok bool)) *fetch {
	f := &fetch{limit: limit, origin: rand.IntN(len(s.origins)), done: done}
	s.fetches[h] = f
	s.hurry()
	return f
}

// send asks the next origin for an object. When all have failed those who wait
// are told.
func (s *source) send(h bundle.Hash, f *fetch) {
	for f.tried < len(s.origins) {
		o := s.origins[(f.origin+f.tried)%len(s.origins)]
		f.tried++
		name := h.String()
		err := s.get(o, "/"+bundle.PathNode(h), "", func(status string, _ string, body []byte) {
			if s.fetches[h] != f {
				return // it was given up
			}
			if status == "200" && bundle.HashOf(body) == h {
				delete(s.fetches, h)
				s.keep(h, body)
				f.done(f.waiting, true)
				return
			}
			s.host.Log(Warn, Line("a node was not served", "bundle", s.name, "node", name, "cluster", o.Cluster, "status", status))
			s.send(h, f)
		}, f.limit)
		if err == nil {
			f.begun = s.now()
			return
		}
		s.host.Log(Warn, Line("an origin cannot be asked", "bundle", s.name, "cluster", o.Cluster, "error", err))
	}
	delete(s.fetches, h)
	f.done(f.waiting, false)
}

// get asks an origin for a path.
func (s *source) get(o Origin, path, etag string, done func(status, etag string, body []byte), limit int) error {
	headers := [][2]string{{":method", "GET"}, {":path", o.Path + path}, {":authority", o.Authority}, {":scheme", "https"}, {"accept", "*/*"}}
	if o.BearerToken != "" {
		headers = append(headers, [2]string{"authorization", "Bearer " + o.BearerToken})
	}
	if etag != "" {
		headers = append(headers, [2]string{"if-none-match", etag})
	}
	return s.host.Dispatch(o.Cluster, headers, fetchTimeout, limit, done)
}

// gone forgets a request that ended while it waited.
func (s *source) gone(request uint32) {
	for _, f := range s.fetches {
		f.waiting = slices.DeleteFunc(f.waiting, func(r uint32) bool { return r == request })
	}
}
