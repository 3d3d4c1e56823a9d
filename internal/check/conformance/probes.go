package main

import "strings"

const (
	get   = "GET PATH HTTP/1.1\r\nHost: HOST\r\nLINE"
	post  = "POST PATH HTTP/1.1\r\nHost: HOST\r\nLINE"
	shake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
	// behind is a request that nobody decides on, if it can hide behind another.
	behind = "GET /behind HTTP/1.1\r\nHost: HOST\r\nKeystile-Key-Id: evil\r\n\r\n"
)

var (
	goesOn    = fate{reason: "ok"}
	asPost    = fate{reason: "ok", method: "POST"}
	upgraded  = fate{reason: "ok", status: 101}
	refused   = fate{}
	malformed = fate{reason: "malformed"}
	multiple  = fate{reason: "multiple"}
	badFormat = fate{reason: "bad_format"}
	missing   = fate{reason: "missing"}
	plaintext = fate{reason: "plaintext"}
	elsewhere = fate{reason: "misdirected"}
)

// changed is text with one part replaced.
func changed(text, from, to string) string { return strings.Replace(text, from, to, 1) }

// h2 is a request by HTTP/2 with more fields.
func h2(more ...string) [][2]string {
	return append([][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "HOST"}, {":path", "PATH"}, {"LINE", "VALUE"}}, pairs(more)...)
}

func pairs(list []string) (out [][2]string) {
	for i := 0; i+1 < len(list); i += 2 {
		out = append(out, [2]string{list[i], list[i+1]})
	}
	return out
}

var probes = concat(ofTarget, ofLines, ofFraming, ofUpgrade, ofHTTP2, ofSeparators())

func concat(lists ...[]probe) (all []probe) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// ofTarget are about the request line and Host.
var ofTarget = []probe{
	{name: "good", raw: get + "\r\n", want: goesOn},
	{name: "Host twice, the same", raw: get + "Host: HOST\r\n\r\n", want: malformed, parser: true},
	{name: "Host twice, another", raw: get + "Host: other.example\r\n\r\n", want: malformed, parser: true},
	{name: "no Host", raw: "GET PATH HTTP/1.1\r\nLINE\r\n", want: refused},
	{name: "empty Host", raw: changed(get, "HOST", "") + "\r\n", want: malformed, parser: true},
	{name: "Host with userinfo", raw: changed(get, "HOST", "x@HOST") + "\r\n", want: malformed, parser: true},
	{name: "another Host", raw: changed(get, "HOST", "other.example") + "\r\n", want: elsewhere},
	{name: "absolute form", raw: changed(get, "PATH", "https://HOSTPATH") + "\r\n", want: malformed, parser: true},
	{name: "absolute form of plain HTTP", raw: changed(get, "PATH", "http://HOSTPATH") + "\r\n", want: malformed, parser: true},
	{name: "absolute form of another host", raw: changed(get, "PATH", "https://other.examplePATH") + "\r\n", want: malformed, parser: true},
	{name: "absolute form with another Host", raw: "GET https://HOSTPATH HTTP/1.1\r\nHost: other.example\r\nLINE\r\n", want: malformed, parser: true},
	{name: "HTTP/1.0", raw: changed(get, "HTTP/1.1", "HTTP/1.0") + "\r\n", want: goesOn, envoy: &refused},
	{name: "HTTP/1.9", raw: changed(get, "HTTP/1.1", "HTTP/1.9") + "\r\n", want: refused, caddy: &goesOn},
	{name: "HTTP/3.0", raw: changed(get, "HTTP/1.1", "HTTP/3.0") + "\r\n", want: refused},
	{name: "HTTP/0.9", raw: "GET PATH\r\n\r\n", want: refused},
	{name: "no path", raw: changed(get, "PATH", "") + "\r\n", want: refused},
	{name: "asterisk", raw: changed(get, "PATH", "*") + "\r\n", want: malformed, parser: true},
	{name: "two spaces before the path", raw: changed(get, "GET ", "GET  ") + "\r\n", want: refused, envoy: &goesOn},
	{name: "space in the path", raw: changed(get, "PATH", "PATH a") + "\r\n", want: refused},
	{name: "path without a slash", raw: changed(get, "PATH", "v1/payments") + "\r\n", want: malformed, parser: true},
	{name: "fragment", raw: changed(get, "PATH", "PATH#x") + "\r\n", want: malformed, parser: true},
	{name: "dot segments", raw: changed(get, "PATH", "/x/..PATH") + "\r\n", want: malformed},
	{name: "escaped slash", raw: changed(get, "PATH", "PATH%2fx") + "\r\n", want: malformed},
	{name: "escaped letter", raw: changed(get, "PATH", "PATH%61") + "\r\n", want: malformed},
	{name: "authority form", raw: changed(get, "GET PATH", "CONNECT HOST:443") + "\r\n", want: malformed, parser: true},
	{name: "plain HTTP", plain: true, raw: get + "\r\n", want: plaintext},
	{name: "plain HTTP that says it is not", plain: true, raw: get + "X-Forwarded-Proto: https\r\nForwarded: proto=https\r\n\r\n", want: plaintext},
	{name: "plain HTTP in absolute form", plain: true, raw: changed(get, "PATH", "https://HOSTPATH") + "X-Forwarded-Proto: https\r\n\r\n", want: plaintext, parser: true},
}

// ofLines are about the lines of a header.
var ofLines = []probe{
	{name: "two keys", keyed: true, raw: get + "LINE\r\n", want: multiple},
	{name: "two keys in one line", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key: KEY,KEY\r\n") + "\r\n", want: multiple},
	{name: "two sources", policy: "vinr", keyed: true, raw: get + "Authorization: Bearer KEY\r\n\r\n", want: multiple},
	{name: "spaces around the key", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key:   KEY  \r\n") + "\r\n", want: goesOn},
	{name: "tab before the key", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key:\tKEY\r\n") + "\r\n", want: goesOn},
	{name: "folded line with the key", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key:\r\n KEY\r\n") + "\r\n", want: goesOn},
	{name: "folded line behind the key", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key: KEY\r\n x\r\n") + "\r\n", want: badFormat},
	{name: "folded line of an identity", raw: get + "X-Note: a\r\n Keystile-Tenant: x\r\n\r\n", shows: "X-Note", want: fate{reason: "ok", shown: "a Keystile-Tenant: x"}},
	{name: "key and obs-text", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key: KEY\xe9\r\n") + "\r\n", want: badFormat},
	{name: "key and NUL", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key: KEY\x00\r\n") + "\r\n", want: refused},
	{name: "space before the colon", policy: "vinr", keyed: true, raw: changed(get, "LINE", "X-Api-Key : KEY\r\n") + "\r\n", want: refused},
	{name: "bare line ends", raw: strings.ReplaceAll(changed(get, "LINE", ""), "\r\n", "\n") + "LINE\n", want: goesOn},
	{name: "bare line end before an identity", raw: get + "X-Note: a\nKeystile-Key-Id: evil\r\n\r\n", want: goesOn},
	{name: "bare CR", raw: get + "X-Note: a\rKeystile-Tenant: x\r\n\r\n", want: refused, envoy: &goesOn},
	{name: "identity by Connection", raw: get + "Connection: keep-alive, Keystile-Key-Id\r\nKeystile-Key-Id: evil\r\n\r\n", want: goesOn},
	{name: "the key by Connection", policy: "vinr", raw: get + "Connection: X-Api-Key\r\n\r\n", want: goesOn, envoy: &missing},
	{name: "override of the method", raw: get + "X-HTTP-Method-Override: DELETE\r\n\r\n", want: malformed},
	{name: "override without a change", raw: get + "X-HTTP-Method-Override: GET\r\n\r\n", want: goesOn},
	{name: "override in a name with underscores", raw: get + "X_HTTP_Method_Override: DELETE\r\n\r\n", want: malformed, caddy: &goesOn},
	{name: "override in a second, empty line", raw: get + "X-HTTP-Method-Override: GET\r\nX-HTTP-Method-Override:\r\n\r\n", want: malformed},
	{name: "original URL", raw: get + "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Envoy-Original-Path: /admin\r\n\r\n", want: goesOn},
	{name: "key in another line", keyed: true, raw: get + "X-Note: a KEY\r\nReferer: https://x.example/?KEY\r\n\r\n", want: goesOn},
	{name: "key where a proxy may have added", keyed: true, raw: get + "X-Forwarded-Uri: PATH?KEY\r\n\r\n", want: malformed},
	{name: "key in a line of Envoy's own", keyed: true, raw: get + "X-Envoy-Original-Path: PATH?KEY\r\n\r\n", want: malformed, envoy: &goesOn},
	{name: "key in Te", keyed: true, raw: get + "Te: KEY\r\n\r\n", want: malformed, envoy: &goesOn},
	{name: "key as the name of a trailer", keyed: true, raw: post + "Trailer: KEY\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: malformed, caddy: &asPost},
	{name: "Early-Data", raw: get + "Early-Data: 1\r\n\r\n", want: fate{reason: "early_data"}},
	{name: "a repeated Referer", raw: get + "Referer: https://a.example/\r\nReferer: https://b.example/\r\n\r\n", shows: "Referer",
		want: fate{reason: "ok", shown: "https://a.example/ | https://b.example/"}, envoy: &fate{reason: "ok", shown: "https://a.example/,https://b.example/"}},
	{name: "lines that Connection names", raw: get + "Connection: X-Note\r\nX-Note: a\r\n\r\n", shows: "X-Note", want: goesOn},
	{name: "a long line", raw: get + "X-Long: " + strings.Repeat("x", 2_000_000) + "\r\n\r\n", want: refused},
	{name: "many lines", raw: get + strings.Repeat("X-Many: x\r\n", 300) + "\r\n", want: goesOn, envoy: &refused},
}

// ofFraming are about where a message ends.
var ofFraming = []probe{
	{name: "body", raw: post + "Content-Length: 3\r\n\r\nabc", want: fate{reason: "ok", method: "POST", body: "abc"}},
	{name: "chunks", raw: post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", want: fate{reason: "ok", method: "POST", body: "abc"}},
	{name: "a request behind", raw: get + "\r\n" + behind, want: goesOn},
	{name: "length and chunks", raw: post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + behind, want: refused, caddy: &asPost},
	{name: "chunks and length", raw: post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + behind, want: refused, caddy: &asPost},
	{name: "two lengths", raw: post + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + behind, want: refused},
	{name: "two lengths, the same", raw: post + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", want: refused, caddy: &fate{reason: "ok", method: "POST", body: "abc"}},
	{name: "a list of lengths", raw: post + "Content-Length: 3, 3\r\n\r\nabc", want: refused},
	{name: "signed length", raw: post + "Content-Length: +0\r\n\r\n", want: refused},
	{name: "chunks twice", raw: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: refused},
	{name: "another encoding", raw: post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", want: refused},
	{name: "encoding with a space", raw: post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", want: refused},
	{name: "trailer", raw: post + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: 1\r\n\r\n", want: fate{reason: "ok", method: "POST", trailer: "X-Sum: 1"}},
	{name: "trailer that nobody announced", raw: post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n", want: fate{reason: "ok", method: "POST", trailer: "X-Sum: 1"}, caddy: &asPost},
	{name: "trailers that mean something", raw: post + "Transfer-Encoding: chunked\r\nTrailer: Keystile-Tenant, X-HTTP-Method-Override, X~Api~Key, X-Sum\r\n\r\n0\r\nKeystile-Tenant: evil\r\nX-HTTP-Method-Override: DELETE\r\nX-Sum: 1\r\n\r\n", want: fate{reason: "ok", method: "POST", trailer: "X-Sum: 1"}},
	{name: "key in a trailer", keyed: true, raw: changed(post, "LINE", "") + "Transfer-Encoding: chunked\r\nTrailer: X-Api-Key, Authorization\r\n\r\n0\r\nLINE\r\n", want: missing},
}

// ofUpgrade ask the connection to become another protocol's.
var ofUpgrade = []probe{
	{name: "WebSocket", raw: get + shake + "\r\n", want: upgraded},
	{name: "WebSocket by POST", raw: post + shake + "Content-Length: 0\r\n\r\n", want: malformed},
	{name: "WebSocket twice", raw: get + shake + "Upgrade: websocket\r\n\r\n", want: malformed, envoy: &refused},
	{name: "WebSocket and an empty line", raw: get + shake + "Upgrade:\r\n\r\n", want: malformed, envoy: &upgraded},
	{name: "WebSocket in a list", raw: get + changed(shake, "websocket", "h2c, websocket") + "\r\n", want: malformed, envoy: &refused},
	{name: "WebSocket with a body", raw: get + shake + "Content-Length: 3\r\n\r\nabc", want: malformed},
	{name: "WebSocket in chunks", raw: get + shake + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: malformed, envoy: &upgraded},
	{name: "WebSocket that the upstream does not want", raw: changed(get, "PATH", "PATH?refuse") + shake + "\r\n", want: fate{reason: "ok", target: "PATH?refuse"}},
	{name: "WebSocket that the upstream does not want, and a request behind", raw: changed(get, "PATH", "PATH?refuse") + shake + "\r\n" + behind, want: fate{reason: "ok", target: "PATH?refuse"}},
	{name: "WebSocket in chunks that the upstream does not want", raw: changed(get, "PATH", "PATH?refuse") + shake + "Transfer-Encoding: chunked\r\n\r\n" + behind, want: malformed, envoy: &fate{reason: "ok", target: "PATH?refuse"}},
	{name: "h2c", raw: get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", want: goesOn},
	{name: "TLS", raw: get + "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", want: goesOn, envoy: &refused},
	{name: "an upgrade that Connection does not name", raw: get + "Upgrade: h2c\r\n\r\n", want: goesOn},
	{name: "101 that nobody asked for", raw: changed(get, "PATH", "PATH?switch") + "\r\n", want: fate{reason: "ok", target: "PATH?switch"}, envoy: &fate{reason: "ok", target: "PATH?switch", status: noTunnel}},
}

// ofHTTP2 are about what HTTP/2 can say and HTTP/1 cannot.
var ofHTTP2 = []probe{
	{name: "h2 good", fields: h2(), want: goesOn},
	{name: "h2 scheme of plain HTTP", fields: replaced(h2(), ":scheme", "http"), want: goesOn},
	{name: "h2 two keys", keyed: true, fields: h2("LINE", "VALUE"), want: multiple},
	{name: "h2 Host alone", fields: without(h2("host", "HOST"), ":authority"), want: goesOn},
	{name: "h2 another Host beside", fields: h2("host", "other.example"), want: malformed, parser: true, envoy: &goesOn},
	{name: "h2 two authorities", fields: h2(":authority", "other.example"), want: refused},
	{name: "h2 two paths", fields: append(h2()[:4:4], [2]string{":path", "/admin"}, [2]string{"LINE", "VALUE"}), want: refused},
	{name: "h2 pseudo-header behind", keyed: true, fields: append(without(h2(), ":path"), [2]string{":path", "PATH"}), want: refused},
	{name: "h2 unknown pseudo-header", fields: append(h2()[:4:4], [2]string{":x", "y"}, [2]string{"LINE", "VALUE"}), want: refused},
	{name: "h2 upper case", fields: h2("X-Note", "a"), want: refused},
	{name: "h2 no path", fields: without(h2(), ":path"), want: refused},
	{name: "h2 empty path", fields: replaced(h2(), ":path", ""), want: refused},
	{name: "h2 asterisk", fields: replaced(h2(), ":path", "*"), want: malformed, parser: true},
	{name: "h2 absolute form", fields: replaced(h2(), ":path", "https://HOSTPATH"), want: malformed, parser: true},
	{name: "h2 Connection", fields: h2("connection", "close"), want: refused},
	{name: "h2 Upgrade", fields: h2("upgrade", "websocket", "sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version", "13"), want: refused},
	{name: "h2 chunks", fields: h2("transfer-encoding", "chunked"), want: refused},
	{name: "h2 CONNECT", fields: append(pairs([]string{":method", "CONNECT", ":authority", "HOST:443"}), [2]string{"LINE", "VALUE"}), want: malformed, parser: true},
	{name: "h2 extended CONNECT", fields: append(pairs([]string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "HOST", ":path", "PATH"}), [2]string{"LINE", "VALUE"}), want: malformed, parser: true},
	{name: "h2 spaces around the key", keyed: true, fields: append(h2()[:4:4], [2]string{"LINE", " VALUE "}), want: badFormat},
	{name: "h2 line end in a value", fields: h2("x-note", "a\r\nkeystile-key-id: evil"), want: refused},
	{name: "h2 line end in a name", fields: h2("x-note: a\r\nkeystile-key-id", "evil"), want: refused},
	{name: "h2 method that is a request", fields: replaced(h2(), ":method", "GET /x HTTP/1.1"), want: malformed, parser: true},
}

func replaced(fields [][2]string, name, value string) [][2]string {
	for i := range fields {
		if fields[i][0] == name {
			fields[i][1] = value
		}
	}
	return fields
}

func without(fields [][2]string, name string) (out [][2]string) {
	for _, f := range fields {
		if f[0] != name {
			out = append(out, f)
		}
	}
	return out
}

// ofSeparators are identity and override under every name that a backend may fold to
// theirs.
func ofSeparators() (out []probe) {
	for _, c := range "!#$%&'*+.^_`|~" {
		s := string(c)
		out = append(out, probe{
			name: "identity with " + s, want: goesOn,
			raw: get + "Keystile" + s + "Key" + s + "Id: evil\r\nkeystile" + s + "tenant: evil\r\n\r\n",
		}, probe{
			name: "h2 identity with " + s, want: goesOn,
			fields: h2("keystile"+s+"key"+s+"id", "evil", "keystile"+s+"tenant", "evil"),
		})
		override := probe{name: "override with " + s, want: malformed, raw: get + "X" + s + "HTTP" + s + "Method: DELETE\r\n\r\n"}
		if s == "." || s == "_" { // Caddy drops both
			override.caddy = &goesOn
		}
		out = append(out, override)
	}
	return out
}
