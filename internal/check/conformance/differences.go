package main

// difference is where Caddy and Envoy do not do the same with a request, or both do
// what is not to be expected, for as long as they are what they are. SECURITY.md has
// the same table (R7).
type difference struct {
	what, caddy, envoy string
	probe              string // that shows it
}

var differences = []difference{
	{"a line that is folded (obs-fold)", "one line", "one line", "folded line of an identity"},
	{"a line that ends in LF alone", "a line", "a line", "bare line ends"},
	{"CR alone within a value", "refused", "goes on without it", "bare CR"},
	{"two spaces before the path", "refused", "goes on as with one", "two spaces before the path"},
	{"HTTP/1.0", "goes on", "refused", "HTTP/1.0"},
	{"HTTP/1.2 to 1.9", "goes on", "refused", "HTTP/1.9"},
	{"more than 100 header lines", "goes on", "refused", "many lines"},
	{"Content-Length beside Transfer-Encoding", "the chunks count, and the length goes no further", "refused", "length and chunks"},
	{"the same, chunks first", "the chunks count, and the length goes no further", "refused", "chunks and length"},
	{"Content-Length twice, the same", "goes on with one", "refused", "two lengths, the same"},
	{"a trailer that no Trailer line announces", "removed", "goes on", "trailer that nobody announced"},
	{"Trailer with the API key", "removed: Go has made names of it", "`malformed`", "key as the name of a trailer"},
	{"Te with the API key", "`malformed`", "goes on without it: Envoy keeps `trailers` alone", "key in Te"},
	{"X-Envoy-Original-Path with the API key", "`malformed`", "goes on without it: Envoy takes its own headers from nobody", "key in a line of Envoy's own"},
	{"a header that Connection names", "goes to Keystile, and no further", "removed before: a key that is named is `missing`", "the key by Connection"},
	{"names with `.` or `_`", "removed before, so that an override in one is not `malformed`", "go to Keystile", "override in a name with underscores"},
	{"the same, with a dot", "removed before", "go to Keystile", "override with ."},
	{"the same, with an underscore", "removed before", "go to Keystile", "override with _"},
	{"Referer twice", "two lines", "one line, joined by a comma", "a repeated Referer"},
	{"Upgrade to another protocol", "goes on as a request", "refused (403), h2c aside", "TLS"},
	{"Upgrade: websocket twice", "`malformed`", "refused (403)", "WebSocket twice"},
	{"Upgrade: websocket in a list", "`malformed`", "refused (403)", "WebSocket in a list"},
	{"an empty second line of Upgrade", "`malformed`", "removed before: a WebSocket", "WebSocket and an empty line"},
	{"a WebSocket's handshake in chunks", "`malformed`", "a WebSocket, and the chunks are what is said first", "WebSocket in chunks"},
	{"the same, where the upstream wants no WebSocket", "`malformed`", "goes on as a request, and nothing of the chunks does", "WebSocket in chunks that the upstream does not want"},
	{"an upstream that answers 101 unasked", "200 without a body", "101, and then nothing", "101 that nobody asked for"},
	{"Host beside another :authority", "refused", "removed before", "h2 another Host beside"},
}
