package policy

import "strconv"

// Words are the parts of an answer, before they are put into a body.
type Words struct{ Title, Message, Code string }

var statusWords = map[int]Words{
	400: {"Bad Request", "The request is not in canonical form.", "INVALID_REQUEST"},
	401: {"Unauthorized", "Missing or invalid API key.", "UNAUTHORIZED"},
	403: {"Forbidden", "This key may not do this.", "FORBIDDEN"},
	421: {"Misdirected Request", "This host is not served here.", "MISDIRECTED"},
	425: {"Too Early", "Send the request again.", "TOO_EARLY"},
	429: {"Too Many Requests", "Rate limit exceeded.", "RATE_LIMITED"},
	503: {"Service Unavailable", "Keys cannot be verified at the moment.", "UNAVAILABLE"},
}

// DefaultWords are what r says at this status unless a policy has its own; the
// zero Words if there are none.
func DefaultWords(r Reason, status int) Words {
	if r == Plaintext && status == 403 {
		return Words{"Forbidden", "HTTPS is required. A key sent over plain HTTP is exposed: roll it.", "HTTPS_REQUIRED"}
	}
	return statusWords[status]
}

// Problem is the body of an answer that has no envelope of its own (RFC 9457),
// where ${…} stand for its words.
const (
	ProblemType = "application/problem+json"
	ProblemBody = `{"type":"about:blank","title":"${title}","status":${status},"detail":"${message}"}`
)

// Fallback is the answer of an edge that has no policy yet.
func Fallback(r Reason) *Answer {
	status := r.DefaultStatus()
	w := DefaultWords(r, status)
	return &Answer{
		Status: status, ContentType: ProblemType,
		body: bodyTemplate{[]byte(`{"type":"about:blank","title":"` + w.Title + `","status":` + strconv.Itoa(status) + `,"detail":"` + w.Message + `"}`)},
	}
}
