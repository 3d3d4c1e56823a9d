package core

import "github.com/keystile/keystile/core/shape"

// Hosts are the verifiers of several bundles behind one address, in a fixed order.
type Hosts []*Verifier

// Find returns the index of the verifier that decides requests for authority: the one
// whose policy names the host, or else one that denies them. nobodys is true if the host
// is certainly nobody's, so that such requests may be none of Keystile's business: not a
// host that is malformed, nor a policy's name with another port, nor any host while a
// bundle is not here yet.
func (hosts Hosts) Find(authority string) (i int, nobodys bool) {
	host, ok := shape.CanonicalHost(authority)
	unknown, near := -1, -1
	for i, v := range hosts {
		b := v.Bundle()
		switch {
		case b == nil:
			unknown = i
		case !ok:
		case b.Policy.Serves(host):
			return i, false
		case b.Policy.ServesName(shape.HostName(host)):
			near = i
		}
	}
	switch {
	case near >= 0:
		return near, false
	case unknown >= 0:
		return unknown, false
	}
	return 0, ok
}
