package plugin

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// hostile is what a log must not be given as it is.
var hostile = "\x00\x07\n\r\t\x1b[31m\"},\"reason\":\"ok\\\x7f\u0080\u009b\u2028\u202e\U000e0001\xff\xc0\xaf\xed\xa0\x80" + strings.Repeat("\xff", 3*maxText)

// checkLines fails for a line that is not one line of printable text and a JSON
// object, or is longer than it may be, and gives the objects.
func checkLines(t *testing.T, lines []string) (objects []map[string]any) {
	t.Helper()
	for _, line := range lines {
		_, rest, ok := strings.Cut(line, " {")
		object := make(map[string]any)
		if err := json.Unmarshal([]byte("{"+rest), &object); !ok || err != nil || !strings.HasPrefix(line, "keystile: ") {
			t.Errorf("%q: %v", line, err)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not printable", line)
		}
		for name, value := range object {
			if text, _ := value.(string); len([]rune(text)) > maxText+1 {
				t.Errorf("%s has %d characters", name, len([]rune(text)))
			}
		}
		objects = append(objects, object)
	}
	return objects
}

func TestLine(t *testing.T) {
	got := Line("it happens", "text", "a\"\\\n\x7f\xffé\u202e\U000e0001", "number", 7, "more", uint64(8), "error", errors.New("x"), "reason", policy.OK)
	if want := `keystile: it happens {"text":"a\"\\\u000a\u007f` + "\ufffdé" + `\u202e\udb40\udc01","number":7,"more":8,"error":"x","reason":"ok"}`; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	if object := checkLines(t, []string{got})[0]; object["text"] != "a\"\\\n\x7f\ufffdé\u202e\U000e0001" || object["number"] != 7.0 {
		t.Errorf("it reads as %q", object)
	}
	const key = "sk_live_0123456789abcdefghijABCDEFGHIJ01234567" // an error may quote one (R74)
	if got := Line("x", "error", errors.New("bad key "+key), key, 1); got != `keystile: x {"error":"bad key REDACTED","REDACTED":1}` {
		t.Error(got)
	}
	long := checkLines(t, []string{Line("x", "text", hostile)})[0]["text"].(string)
	if !strings.HasSuffix(long, "…") {
		t.Errorf("%q does not say that it was cut", long)
	}
}

// R75: whatever a client, an origin or another worker sends, each line of the log is
// one line, with a JSON object.
func TestHostileLog(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	e, s := w.guards[0], w.source()
	s.name, e.name = hostile, hostile
	for i := range s.origins {
		s.origins[i].Cluster = hostile
	}
	w.fake.log = nil
	seen := func(what string) {
		t.Helper()
		checkLines(t, w.fake.log)
		if !slices.ContainsFunc(w.fake.log, func(line string) bool { return strings.HasPrefix(line, "keystile: "+what+" {") }) {
			t.Errorf("%q is not logged: %q", what, w.fake.log)
		}
		w.fake.log = nil
	}
	answer := func(status, body string) {
		t.Helper()
		w.tick(2 * time.Minute)
		for len(w.calls) > 0 {
			c := w.calls[0]
			w.calls = w.calls[1:]
			c.done(status, hostile, []byte(body))
		}
	}

	w.fake.request("GET", "https://api.test/"+hostile, "authorization: "+hostile, "origin: "+hostile, "content-type: "+hostile)
	w.Request(1, false)
	seen("denied")
	w.Plugin.log(e, &core.Decision{
		RequestID: hostile, Route: hostile, RequiredScope: hostile, Reason: policy.Scope, Status: 403,
		Key: &core.Key{ID: hostile}, Err: errors.New(hostile),
	})
	seen("denied")
	w.failure = errors.New(hostile)
	w.fake.request("GET", "https://api.test/x")
	w.Request(2, false)
	seen("the answer cannot be sent")
	w.fails = true
	w.Request(3, false)
	seen("the request's headers cannot be read")
	w.fails, w.failure = false, nil
	w.panics = hostile
	w.Request(4, false)
	seen("panic")
	w.panics = ""

	answer(hostile, "")
	seen("an origin gives no bundle")
	answer("200", hostile)
	seen("an origin gives no bundle")
	w.dispatch = errors.New(hostile)
	w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
	w.Request(5, false)
	w.tick(time.Millisecond)
	seen("an origin cannot be asked")
	w.dispatch = nil
	w.fake.request("GET", "https://api.test/x", "authorization: Bearer "+key)
	w.Request(6, false)
	answer(hostile, hostile)
	seen("a node was not served")
	w.SetSharedData(s.notesKey, []byte(hostile), 0)
	w.tick(tickInterval)
	seen("what another worker has found is refused")
	w.SetSharedData(s.notesKey, bundle.AppendState(nil, bundle.Notes{PolicyNote: []byte(hostile), Manifest: []byte(hostile)}), 0)
	w.tick(tickInterval)
	seen("what another worker has found is refused")
	s.refuse(errors.New(hostile))
	seen("a bundle was refused")
	e.use(w.fake, e.verifier.Bundle())
	seen("bundle in use")
	e.status = "x"
	e.tell(w.fake)
	seen("requests are decided")
}

// The line of a denial names method, host and path, what was allowed, and Envoy's own name
// of the request, with TLS and without; it never holds a key, wherever a client puts it
// (R74).
func TestDenialLine(t *testing.T) {
	b, key := shop(t)
	w := newWorker(t, newShared(), b)
	w.settle(t, b.Directory)
	for name, tt := range map[string]struct {
		tls, id, method, path string
		lines                 []string
		want                  map[string]any
	}{
		"no key": {"TLSv1.3", "0a1b", "GET", "/x/y?q=1", nil,
			map[string]any{"reason": "missing", "status": 401.0, "bundle": "shop", "method": "GET", "host": "api.test", "path": "/x/y", "allowed": "Authorization: Bearer", "x_request_id": "0a1b"}},
		"plain HTTP": {"", "0a1b", "POST", "/x/y?q=1", nil,
			map[string]any{"reason": "plaintext", "method": "POST", "host": "api.test", "path": "/x/y", "x_request_id": nil}},
		"key in the path":             {"TLSv1.3", "", "GET", "/x/" + key, nil, map[string]any{"reason": "in_url", "path": core.LeftOut, "x_request_id": nil}},
		"key in the path, plain HTTP": {"", "", "GET", "/x/" + key, nil, map[string]any{"reason": "plaintext", "path": core.LeftOut}},
		"key as the request's name":   {"TLSv1.3", key, "GET", "/x", nil, map[string]any{"reason": "missing", "x_request_id": core.LeftOut}},
		"key as the method":           {"TLSv1.3", "", key, "/x", nil, map[string]any{"reason": "malformed", "method": core.LeftOut}},
	} {
		w.fake.request(tt.method, "https://api.test"+tt.path, tt.lines...)
		w.properties["connection.tls_version"], w.properties["request.id"], w.properties["request.method"] = tt.tls, tt.id, tt.method
		w.fake.log = nil
		w.Request(1, false)
		if len(w.fake.log) != 1 || strings.Contains(w.fake.log[0], key) {
			t.Errorf("%s: %d lines, or one with a key", name, len(w.fake.log))
			continue
		}
		line := checkLines(t, w.fake.log)[0]
		for field, want := range tt.want {
			if line[field] != want {
				t.Errorf("%s: %s is %v, not %v", name, field, line[field], want)
			}
		}
	}
}
