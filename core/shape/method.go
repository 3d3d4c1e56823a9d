package shape

// Method is a request method that a route can name. HEAD is GET.
type Method uint8

// The methods, in the order in which documents and headers list them.
const (
	GET Method = iota
	POST
	PUT
	PATCH
	DELETE
	OPTIONS

	NumMethods = iota
)

// MethodNames are the names of the methods, by number.
var MethodNames = [NumMethods]string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// ParseMethod returns the method of an exact upper-case token (R19), HEAD as
// GET (R21). Any other token is not known.
func ParseMethod(s string) (m Method, known bool) {
	switch s {
	case "GET", "HEAD":
		return GET, true
	case "POST":
		return POST, true
	case "PUT":
		return PUT, true
	case "PATCH":
		return PATCH, true
	case "DELETE":
		return DELETE, true
	case "OPTIONS":
		return OPTIONS, true
	}
	return 0, false
}

func (m Method) String() string { return MethodNames[m] }

// MethodSet is a set of methods.
type MethodSet uint8

// AllMethods are those that a route has unless it lists others: OPTIONS belongs
// to a route only by name.
const AllMethods MethodSet = 1<<OPTIONS - 1

// Has says whether m is in s.
func (s MethodSet) Has(m Method) bool { return s&(1<<m) != 0 }

// With returns s with m.
func (s MethodSet) With(m Method) MethodSet { return s | 1<<m }
