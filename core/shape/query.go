package shape

// CanonicalQuery refuses what no URL has in its query: spaces, control and
// non-ASCII bytes, and fragments (R13).
func CanonicalQuery(q string) bool {
	for i := range len(q) {
		if q[i] <= 0x20 || q[i] >= 0x7f || q[i] == '#' {
			return false
		}
	}
	return true
}
