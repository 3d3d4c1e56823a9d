package plugin

import (
	"time"

	"github.com/keystile/keystile/core"
)

// Host is what the proxy does for the plugin. Only what is needed is in it, so
// that another proxy, or a test, can take its place.
type Host interface {
	// RequestHeaders gives every header line of the request, in order, with
	// pseudo-headers and names in lower case (R27). What it gives is good until
	// the next call.
	RequestHeaders() ([]core.Header, error)
	// RemoveRequestHeader removes all lines of a name.
	RemoveRequestHeader(name string) error
	// SetRequestHeader makes value the only line of a name.
	SetRequestHeader(name, value string) error
	// AddRequestHeader adds a line to those of a name.
	AddRequestHeader(name, value string) error
	// RequestTrailers gives every line of the request's trailer.
	RequestTrailers() ([]core.Header, error)
	// RemoveRequestTrailer removes all lines of a name.
	RemoveRequestTrailer(name string) error
	// AddRequestTrailer adds a line to those of a name.
	AddRequestTrailer(name, value string) error
	// Respond answers the client, and nothing goes upstream.
	Respond(status uint32, headers [][2]string, body []byte) error

	// Select makes a request the one that the calls above are about, where it is
	// not the one whose headers have just come.
	Select(request uint32) error
	// Resume lets a request go on that waited.
	Resume(request uint32) error

	// Dispatch sends a request to a cluster and calls done with the status, the
	// entity tag and the body of the answer, of at most limit bytes; the status is
	// "" where there is none.
	Dispatch(cluster string, headers [][2]string, timeout time.Duration, limit int, done func(status, etag string, body []byte)) error

	// SharedData gives what all workers share, with a number that changes with it.
	SharedData(key string) (value []byte, cas uint32, err error)
	// SetSharedData sets it, unless it has changed since cas; 0 sets it anyway.
	SetSharedData(key string, value []byte, cas uint32) error

	// Property gives what the proxy knows of the request and its connection, or
	// nil where it knows nothing.
	Property(path ...string) []byte
	// SetProperty tells later filters and the access log.
	SetProperty(name string, value []byte) error

	// Log writes a line into the proxy's log.
	Log(level Level, line string)
	// Counter and Gauge define a metric.
	Counter(name string) Counter
	Gauge(name string) Gauge
	// Tick asks for a call of [Plugin.Tick] every so many milliseconds.
	Tick(milliseconds uint32) error
}

// Counter is a metric that rises.
type Counter interface{ Add(n uint64) }

// Gauge is a metric that is set.
type Gauge interface{ Set(v int64) }

// Level is the weight of a log line.
type Level uint8

// The levels that the plugin writes.
const (
	Info Level = iota
	Warn
	Error
)
