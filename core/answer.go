package core

import (
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/keystile/keystile/core/policy"
)

// retryAfter is how long a client waits after a 503, in seconds.
const retryAfter = "5"

// newRequestID is 130 random bits as text.
func newRequestID() string { return rand.Text() }

// deny fills in the answer of a denial of a request with these lines, which had
// selected route, or none.
func (d *Decision) deny(reason policy.Reason, lines []Header, route *policy.Route) {
	d.Outcome, d.Set, d.Reason = Deny, nil, reason
	d.RequestID = newRequestID()
	d.keepToken, d.webSocket = false, false
	var answer *policy.Answer
	if d.policy != nil {
		answer = &d.policy.Answers[reason]
	} else {
		answer = policy.Fallback(reason)
	}
	granted := ""
	if d.Key != nil {
		granted = d.Key.Scopes
	}
	d.Status = answer.Status
	d.Body = answer.Render(d.RequiredScope, granted)
	d.Header = append(make([]Header, 0, 8),
		Header{Name: "Content-Type", Value: answer.ContentType},
		Header{Name: "Cache-Control", Value: "no-store"},
		Header{Name: policy.RequestID, Value: d.RequestID})
	if answer.Challenge != "" {
		d.Header = append(d.Header, Header{Name: "WWW-Authenticate", Value: answer.Challenge})
	}
	if d.Status == 503 {
		d.Header = append(d.Header, Header{Name: "Retry-After", Value: retryAfter})
	}
	if route != nil && route.CORS { // selected, so that the request has come to step 4
		d.Header = append(d.Header, Header{Name: "Access-Control-Allow-Origin", Value: "*"})
	}
	if reason == policy.Plaintext {
		// The same whatever was sent: no header is looked at for it.
		d.Close = true
		return
	}
	if isGRPC(lines) {
		d.asGRPC()
	}
}

func isGRPC(lines []Header) bool {
	n, value := count(lines, "Content-Type")
	rest, ok := strings.CutPrefix(value, grpcType)
	return n == 1 && ok && (rest == "" || rest[0] == '+')
}

const grpcType = "application/grpc"

var grpcStatus = map[int]int{400: 13, 401: 16, 403: 7, 421: 2, 425: 14, 429: 8, 503: 14}

// asGRPC turns an HTTP answer into gRPC's, with the status in the headers alone
// and the body in the message.
func (d *Decision) asGRPC() {
	status, ok := grpcStatus[d.Status]
	if !ok {
		status = 2 // unknown
	}
	d.Header[0].Value = grpcType
	d.Header = append(d.Header,
		Header{Name: "grpc-status", Value: strconv.Itoa(status)},
		Header{Name: "grpc-message", Value: grpcMessage(d.Body)})
	d.Status, d.Body = 200, nil
}

// grpcMessage percent-encodes as gRPC over HTTP/2 says: all but visible ASCII
// and space, and the percent sign itself.
func grpcMessage(b []byte) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for _, c := range b {
		if c < 0x20 || c > 0x7e || c == '%' {
			out.Write([]byte{'%', hex[c>>4], hex[c&15]})
			continue
		}
		out.WriteByte(c)
	}
	return out.String()
}

// Unavailable is the denial of a request that a host cannot even put into core's terms.
// There is no policy to answer by.
func Unavailable() Decision {
	var d Decision
	d.deny(policy.Internal, nil, nil)
	return d
}
