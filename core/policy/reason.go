package policy

// Reason says why a request was denied, or answered by the edge itself. The
// list is closed: logs, metrics, tables and `explain` use exactly these names.
type Reason uint8

// The reasons, in the order in which a request meets them. Their numbers are
// part of the compiled policy's format.
const (
	OK Reason = iota // no denial

	Plaintext
	EarlyData

	Malformed
	Misdirected

	InURL
	InCookie
	Multiple
	Missing
	BadFormat

	Unknown
	Revoked
	Expired
	NotYetValid
	WrongEnvironment

	TokenMissing
	TokenInvalid
	TokenExpired

	WrongKind
	NoRoute
	IP
	Referrer
	Endpoint
	Tenant
	Scope

	RateLimited

	NoBundle
	BundleExpired
	StaleBundle
	NodeMissing
	Internal

	NumReasons = iota
)

var reasonNames = [NumReasons]string{
	"ok",
	"plaintext", "early_data",
	"malformed", "misdirected",
	"in_url", "in_cookie", "multiple", "missing", "bad_format",
	"unknown", "revoked", "expired", "not_yet_valid", "wrong_environment",
	"token_missing", "token_invalid", "token_expired",
	"kind", "no_route", "ip", "referrer", "endpoint", "tenant", "scope",
	"rate_limited",
	"no_bundle", "bundle_expired", "stale_bundle", "node_missing", "internal",
}

// String returns the reason's name, as in logs.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "internal"
}

// ParseReason returns the reason called name.
func ParseReason(name string) (Reason, bool) {
	for i, n := range reasonNames {
		if n == name {
			return Reason(i), true
		}
	}
	return Internal, false
}

// DefaultStatus is the HTTP status of r unless a policy gives another.
func (r Reason) DefaultStatus() int {
	switch {
	case r == Plaintext:
		return 403
	case r == EarlyData:
		return 425
	case r == Malformed:
		return 400
	case r == Misdirected:
		return 421
	case r >= InURL && r <= TokenExpired:
		return 401
	case r >= WrongKind && r <= Scope:
		return 403
	case r == RateLimited:
		return 429
	}
	return 503
}
