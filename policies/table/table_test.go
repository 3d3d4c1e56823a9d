package table

import (
	"strings"
	"testing"
	"time"
)

// What a table cannot mean is refused, with words that say how to mend it.
func TestLoadRefuses(t *testing.T) {
	for row, want := range map[string]string{
		`{name: x, request: GET /x, reason: ok}`:                                                       "write METHOD",
		`{name: x, request: GET https://a/, reason: ok, headers: [x]}`:                                 "Name: value",
		`{name: x, request: GET https://a/, reason: ok, trailers: [":x"]}`:                             "Name: value",
		`{name: x, request: GET https://a/, reason: ok, headers: ["content-length: 3"]}`:               "say body, chunked or trailers",
		`{name: x, request: GET https://a/, reason: ok, http: [4]}`:                                    "use 1, 2 or 3",
		`{name: x, request: GET https://a/, reason: ok, only: [nginx]}`:                                "use core, caddy, envoy",
		`{name: x, request: GET https://a/, reason: ok, early_data: true}`:                             "only: [core]",
		`{name: x, request: GET https://a/, reason: ok, now: midnight}`:                                "only: [core]",
		`{name: x, request: GET https://a/, reason: ok, only: [core], now: "midnight 1d"}`:             "write midnight",
		`{name: x, request: GET https://a/, reason: ok, only: [core], now: noon}`:                      "no length of time",
		`{name: x, request: GET https://a/, reason: ok, on: {nginx: {reason: ok}}}`:                    "name a host",
		`{name: x, request: GET https://a/, reason: ok, on: {caddy/4: {reason: ok}}}`:                  "name a host",
		`{name: x, request: GET https://a/, reason: ok, only: [core], on: {caddy: {reason: ok}}}`:      "add it to only",
		`{name: x, request: GET https://a/, reason: ok, http: [1], on: {caddy/2: {reason: ok}}}`:       "add it to http",
		`{name: x, request: GET https://a/, reason: ok, on: {caddy: {reason: missing}}}`:               "on caddy: a denial needs a status",
		`{name: x, request: GET https://a/, reason: ok, on: {caddy: {}}}`:                              "on caddy: reason",
		`{name: x, request: GET https://a/, reason: ok, on: {caddy: {reason: ok, body: x}}}`:           "unknown field",
		`{name: x, request: GET https://a/, reason: missing, expect: {status: 401}, upstream_body: x}`: "has no upstream",
		`{name: x, request: GET https://a/, parser: true, upgraded: true}`:                             "has no upstream",
		`{name: x, request: GET https://a/, reason: ok, expect: {status: 401}}`:                        "no answer of the edge",
		`{name: x, request: GET https://a/, reason: ok, upstream_trailers: [x]}`:                       "Name: value",
		`{name: x, request: GET https://a/, reason: maybe}`:                                            "not one of the list",
		`{name: x, request: GET https://a/, reason: ok, answer: no}`:                                   "not under answers",
		`{request: GET https://a/, reason: ok}`:                                                        "has no name",
	} {
		if _, err := Load("t.yaml", []byte("rows: ["+row+"]")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", row, err, want)
		}
	}
}

// What stands for a host is taken before what stands for the row, and the version of a
// host before the host.
func TestWantOfAHost(t *testing.T) {
	tab, err := Load("t.yaml", []byte(`rows: [{name: x, request: GET https://a/, reason: ok, on: {envoy: {parser: true}, envoy/2: {reason: ok, upgraded: true}}}]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host                  string
		version               int
		parser, upgraded, own bool
	}{{"core", 1, false, false, false}, {"envoy", 1, true, false, true}, {"envoy", 2, false, true, true}} {
		if w, own := tab.Rows[0].want(tt.host, tt.version); own != tt.own || w.Parser != tt.parser || w.Upgraded != tt.upgraded {
			t.Errorf("%s/%d: %+v, %v", tt.host, tt.version, w, own)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("east", 6*3600)) // the day before in UTC
	for s, want := range map[string]string{
		"-1h": "2026-03-03T22:06:07Z", "2d": "2026-03-05T23:06:07Z", "midnight": "2026-03-03T00:00:00Z",
		"midnight +1d": "2026-03-04T00:00:00Z", "midnight -1s": "2026-03-02T23:59:59Z", "midnight +23h59m59s": "2026-03-03T23:59:59Z",
	} {
		if at, err := moment(s, now); err != nil || at.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v", s, at, err)
		}
	}
}
