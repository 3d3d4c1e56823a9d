package main_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// R32: the API key does not go on under another name; other lines of that name do, and
// other keys.
func (r *rig) keyElsewhere(t *testing.T) {
	lines := []string{
		"X-Api-Key: " + r.key, "X-Note: first", "X-Note: it is " + r.key, "X-Note: last",
		"Referer: https://shop.test/?k=" + r.key, "X-Other: " + r.otherKey,
		"X-Escaped: " + strings.Replace(r.key, "_", "%5F", 1),
		"Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+r.key)),
	}
	if got := r.ask(t, r.head("GET", "/wire", lines...)+"\r\n"); got != 200 {
		t.Fatalf("status %d", got)
	}
	a := r.wire.next(t)
	unescaped, _ := url.PathUnescape(a.bytes)
	if strings.Contains(unescaped, r.key) || a.request.Header.Get("Proxy-Authorization") != "" {
		t.Errorf("the upstream got the key: %q", a.bytes)
	}
	if got := a.request.Header["X-Note"]; !slices.Equal(got, []string{"first", "last"}) || a.request.Header.Get("X-Other") != r.otherKey {
		t.Errorf("the upstream got %v", a.request.Header)
	}
	for _, line := range []string{"X-Forwarded-Host: " + r.key, "Content-Type: text/" + r.key, "Via: 1.1 " + r.key} {
		if got := r.ask(t, r.head("GET", "/wire", line)+"\r\n"); got != 400 {
			t.Errorf("%.10s…: %d", line, got)
		}
	}
}

// separators are the characters of a header's name that are no letters or digits.
const separators = "!#$%&'*+-.^_`|~"

// R36: names that backends fold to an identity header's never go on, whichever
// character takes the place of the hyphen; others do.
func (r *rig) names(t *testing.T) {
	var lines, fields []string
	for _, c := range separators {
		for name, value := range map[string]string{
			"Keystile-Key-Id": "forged", "KEYSTILE-TENANT": "forged", "keystile-later": "forged", "X-HTTP-Method-Override": "GET", "X-Sum": "kept",
		} {
			name = strings.ReplaceAll(name, "-", string(c))
			lines = append(lines, name+": "+value)
			fields = append(fields, strings.ToLower(name), value)
		}
	}
	if got := r.ask(t, r.head("GET", "/wire", lines...)+"\r\n"); got != 200 {
		t.Errorf("status %d", got)
	}
	r.checkNames(t)
	request := []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/wire", "authorization", "Bearer " + r.key}
	if got := r.fields(t, append(request, fields...)); got != "200" {
		t.Errorf("HTTP/2: %s", got)
	}
	r.checkNames(t)
}

func (r *rig) checkNames(t *testing.T) {
	t.Helper()
	a := r.wire.next(t)
	r.noForgery(t, a)
	if got := strings.Count(a.bytes, "kept"); got != len(separators) {
		t.Errorf("%d of %d other lines went on: %q", got, len(separators), a.bytes)
	}
	if got := a.request.Header["Keystile-Key-Id"]; !slices.Equal(got, []string{r.id}) {
		t.Errorf("Keystile-Key-Id is %q", got)
	}
}

// noForgery says that nothing of what the tests send went on that must not.
func (r *rig) noForgery(t *testing.T, a arrival) {
	t.Helper()
	lower := strings.ToLower(a.bytes)
	for _, bad := range []string{"forged", strings.ToLower(r.key), "override"} {
		if strings.Contains(lower, bad) {
			t.Errorf("the upstream got %s in %q", bad, a.bytes)
		}
	}
}

// trailer is what clients of the tests send behind a body, with a key: what must not
// go on, and what does.
func trailer(key string) http.Header {
	return http.Header{
		"Keystile-Key-Id": {"forged"}, "Keystile_tenant": {"forged"}, "Keystile.scopes": {"forged"}, "Authorization": {"Bearer " + key},
		"X-Other": {"it is " + key}, "X-Http-Method-Override": {"DELETE"}, "X_http_method": {"DELETE"},
		"X-Several": {"first", key, "last"}, "X-Sum": {"kept"},
	}
}

// chunked is a body of the chunked form with a trailer.
func chunked(trailer http.Header) string {
	var b strings.Builder
	b.WriteString("4\r\nbody\r\n0\r\n")
	trailer.Write(&b)
	return b.String() + "\r\n"
}

// checkTrailer says that of [trailer] what may go on did so, and nothing else.
func checkTrailer(t *testing.T, got http.Header) {
	t.Helper()
	count := 0
	for _, lines := range got {
		count += len(lines)
	}
	if count != 3 || got.Get("X-Sum") != "kept" || !slices.Equal(got["X-Several"], []string{"first", "last"}) {
		for name, lines := range got {
			t.Errorf("the upstream's trailer has %s (%d lines)", name, len(lines))
		}
	}
}

// R30, R35: of a request's trailer nothing goes on that means something to the edge.
func (r *rig) trailers(t *testing.T) {
	for path, check := range map[string]func(){
		"/wire":   func() { checkTrailer(t, r.wire.next(t).request.Trailer) },
		"/second": func() { checkTrailer(t, await(t, r.second, "a request")) },
	} {
		sent := trailer(r.key)
		if got := r.ask(t, r.head("POST", path, "Transfer-Encoding: chunked", announce(sent))+"\r\n"+chunked(sent)); got != 200 {
			t.Errorf("HTTP/1.1, %s: %d", path, got)
		}
		check()
		r.trailersBy2(t, path, sent)
		check()
	}
}

func announce(trailer http.Header) string {
	var names []string
	for name := range trailer {
		names = append(names, name)
	}
	return "Trailer: " + strings.Join(names, ", ")
}

// trailersBy2 sends a request with a trailer by HTTP/2.
func (r *rig) trailersBy2(t *testing.T, path string, trailer http.Header) {
	t.Helper()
	transport := r.client.Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2 = true
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest("POST", "https://api.test"+path, struct{ *strings.Reader }{strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.key)
	request.Trailer = trailer
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.ProtoMajor != 2 || response.StatusCode != 200 {
		t.Errorf("%s: %s %s", path, response.Proto, response.Status)
	}
}

// The same of requests that waited for a node, with the trailer there before the node
// or after it, and both where Envoy shows a filter the trailer while it waits and
// where it does not.
func (r *rig) trailersAfterWaiting(t *testing.T) {
	for _, w := range r.waiting {
		w.serves(t)
		for _, before := range []bool{true, false} {
			path := "/wire/" + w.name + strconv.FormatBool(before)
			var sent http.Header
			c, answered := w.ask(t, func(key string) string {
				sent = trailer(key)
				head := headWith(key, "POST", path, "Transfer-Encoding: chunked", announce(sent)) + "\r\n"
				if before {
					return head + chunked(sent)
				}
				return head
			})
			w.letGo()
			if !before {
				for await(t, r.wire.begun, "the request's head") != path {
					// one of another test
				}
				c.send(chunked(sent))
			}
			await(t, answered, "an answer")
			if response, body := c.answer(); response.StatusCode != 200 {
				t.Errorf("%s, trailer before the node %v: %d %s", w.name, before, response.StatusCode, body)
				continue
			}
			checkTrailer(t, r.wire.next(t).request.Trailer)
		}
	}
}
