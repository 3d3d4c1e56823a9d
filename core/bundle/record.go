package bundle

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
)

// Status is the state of a key. Expired is no status: the times say it.
type Status uint8

// The states of a key.
const (
	Active     Status = 1
	Deprecated Status = 2 // rolled; still works and is marked
	Revoked    Status = 3
)

var statusNames = map[Status]string{Active: "active", Deprecated: "deprecated", Revoked: "revoked"}

func (s Status) String() string { return statusNames[s] }

// ParseStatus returns the status called name.
func ParseStatus(name string) (Status, error) {
	for s, n := range statusNames {
		if n == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("status %q: use active, deprecated or revoked", name)
}

// Record is what a bundle says of one key.
type Record struct {
	Digest      credential.Digest
	KeyID       string
	Kind        string
	Environment string
	Tenant      string // "" for none
	Status      Status
	Scopes      []string // byte-sorted, without repeats
	NotBefore   int64    // Unix seconds, inclusive; 0 for none
	Expires     int64    // Unix seconds, exclusive; 0 for never

	// The restrictions; each that is set must hold.
	Prefixes  []netip.Prefix // masked; IPv4 never in mapped form
	Referrers []string       // origins, canonical
	Endpoints []string       // path patterns, with or without a method

	Limits []policy.Limit
}

// Limits of a record.
const (
	maxRecord = 2 << 10 // bytes, with everything that it refers to
	maxKeyID  = 64      // bytes
	maxTenant = 128     // bytes
)

// Check says why the record cannot be published.
func (r *Record) Check() error {
	var zero credential.Digest
	switch {
	case r.Digest == zero:
		return errors.New("it has no digest") // R31
	case r.KeyID == "" || len(r.KeyID) > maxKeyID:
		return fmt.Errorf("its ID has %d bytes: 1 to %d are possible", len(r.KeyID), maxKeyID)
	case statusNames[r.Status] == "":
		return fmt.Errorf("status %d is not known", r.Status)
	case len(r.Tenant) > maxTenant:
		return fmt.Errorf("its tenant has more than %d bytes", maxTenant)
	case r.NotBefore < 0 || r.Expires < 0:
		return errors.New("its times are before 1970")
	case !sorted(r.Scopes) || !sorted(r.Referrers) || !sorted(r.Endpoints):
		return errors.New("its scopes, referrers or endpoints are not sorted, or given twice")
	}
	for _, s := range append([]string{r.KeyID, r.Tenant}, r.Scopes...) {
		if err := policy.CheckIdentityValue(s); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
	}
	for _, e := range r.Endpoints {
		if _, err := policy.ParseEndpoint(e); err != nil {
			return err
		}
	}
	for _, o := range r.Referrers {
		if _, err := policy.ParseReferrer(o); err != nil {
			return err
		}
	}
	if _, err := encodePrefixes(r.Prefixes); err != nil {
		return err
	}
	for _, l := range r.Limits {
		if l.Requests == 0 || l.Window < time.Second || l.Window%time.Second != 0 {
			return errors.New("a limit needs requests, and a window in whole seconds")
		}
	}
	if n := r.size(); n > maxRecord {
		return fmt.Errorf("it has %d bytes: at most %d are possible; shorten its lists", n, maxRecord)
	}
	return nil
}

// Restrict limits the record to IP addresses or prefixes, referrers and
// endpoints, as people write them.
func (r *Record) Restrict(ips, referrers, endpoints []string) error {
	prefixes, err := policy.ParseIPs(ips)
	if err != nil {
		return err
	}
	r.Prefixes, r.Referrers = sortPrefixes(prefixes), nil
	for _, s := range referrers {
		o, err := policy.ParseReferrer(s)
		if err != nil {
			return err
		}
		r.Referrers = append(r.Referrers, o.Canonical())
	}
	slices.Sort(r.Referrers)
	r.Referrers = slices.Compact(r.Referrers)
	r.Endpoints = slices.Compact(slices.Sorted(slices.Values(endpoints)))
	return nil
}

func sorted(list []string) bool {
	for i, s := range list {
		if s == "" || i > 0 && list[i-1] >= s {
			return false
		}
	}
	return true
}

// sortPrefixes brings prefixes into the order of the encoding, without repeats.
func sortPrefixes(list []netip.Prefix) []netip.Prefix {
	key := func(p netip.Prefix) string {
		b, _ := encodePrefixes([]netip.Prefix{p})
		return string(b)
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int { return strings.Compare(key(a), key(b)) })
	return slices.Compact(list)
}
