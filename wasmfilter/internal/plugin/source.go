package plugin

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
)

// Origin is a static HTTP origin of a bundle's directory form.
type Origin struct {
	// Cluster is the name of Envoy's cluster.
	Cluster string `json:"cluster"`
	// Authority is the host name in the requests.
	Authority string `json:"authority"`
	// Path is what stands before "/v1/manifest".
	Path string `json:"path,omitempty"`
	// BearerToken is sent as a bearer token, if there is one.
	BearerToken string `json:"token,omitempty"`
}

// Bounds of what is fetched.
const (
	// fetchTimeout is how long one origin may take.
	fetchTimeout = 2 * time.Second
	// maxFetches is how many nodes are fetched at once for requests; whoever needs
	// one more is denied.
	maxFetches = 64
	// maxWaiting is how many requests wait for one node.
	maxWaiting = 1024
	// rawBytes bounds the nodes that are kept as they were fetched.
	rawBytes = 4 << 20
	// pollInterval is how often the notes are asked for, unless told otherwise.
	pollInterval = 5 * time.Second
)

// source is a bundle that comes over HTTP. One worker asks for the notes, all look
// at what it has found, and each gets the nodes that it needs.
type source struct {
	host    Host
	name    string
	trust   *bundle.Trust
	origins []Origin
	now     func() time.Time
	poll    time.Duration
	accepts bundle.Acceptance // of notes
	hurry   func()            // asks for a tick at once

	notesKey, leaseKey string

	// Of the notes.
	polled   time.Time     // when the lease was last tried for
	pause    time.Duration // after that
	farLease bool          // one that is further ahead than it can be has been logged
	failures int           // in a row
	etag     string        // of the manifest, from the origin asked last
	polling  time.Time
	notesCAS uint32
	found    *bundle.Mark           // the highest notes that anybody has found, verified
	compiled map[bundle.Hash][]byte // the policy in use
	failed   time.Time              // when what was found could not be used
	refusal  string                 // logged last

	raw     map[bundle.Hash][]byte
	order   []bundle.Hash
	size    int
	fetches map[bundle.Hash]*fetch
}

func newSource(h Host, name string, trust *bundle.Trust, c *BundleConfig, hurry func()) (*source, error) {
	for _, o := range c.Origins {
		if o.Cluster == "" || o.Authority == "" {
			return nil, errors.New("an origin needs a cluster of Envoy's and an authority")
		}
		if o.Path != "" && (o.Path[0] != '/' || strings.HasSuffix(o.Path, "/")) {
			return nil, fmt.Errorf("origin path %q: it begins with a slash and does not end with one", o.Path)
		}
	}
	s := &source{
		host: h, name: name, trust: trust, origins: c.Origins, now: time.Now, poll: time.Duration(c.PollInterval), hurry: hurry,
		compiled: make(map[bundle.Hash][]byte), raw: make(map[bundle.Hash][]byte), fetches: make(map[bundle.Hash]*fetch),
	}
	var err error
	if s.notesKey, s.leaseKey, err = sharedKeys(name, c); err != nil {
		return nil, err
	}
	if s.poll == 0 {
		s.poll = pollInterval
	}
	s.accepts = bundle.Acceptance{
		MinVersion: bundle.MinVersion{Version: c.MinVersion, PolicyVersion: c.MinPolicyVersion},
		ClockSkew:  time.Duration(cmp.Or(int64(c.ClockSkew), int64(bundle.DefaultClockSkew))),
	}
	if s.poll < 200*time.Millisecond {
		return nil, fmt.Errorf("poll_interval %s: at least 200ms", s.poll)
	}
	return s, nil
}

// tick sends what is to be sent, gives up what is overdue, asks for the notes
// when it is time, and returns the bundle to use, if there is a new one.
func (s *source) tick(current *bundle.Bundle) *bundle.Bundle {
	now := s.now()
	for _, h := range slices.Collect(maps.Keys(s.fetches)) {
		if f := s.fetches[h]; past(now, f.begun, 2*fetchTimeout) { // or never sent
			s.send(h, f)
		}
	}
	s.look()
	if past(now, s.polled, s.pause) && s.takeLease(now) {
		s.askNotes(now)
	}
	return s.open(current)
}

// sharedKeys are the keys of shared data, of which there is one for the whole
// process: of the notes found, for all who believe the same signers, and of the
// lease to ask for them, for all who have the same configuration. Everything that
// is shared is verified again when it is read.
func sharedKeys(name string, c *BundleConfig) (notes, lease string, err error) {
	key := func(what string, of any) string {
		raw, jsonErr := json.Marshal(of)
		err = errors.Join(err, jsonErr)
		return fmt.Sprintf("keystile.%s.%s.%x", what, name, sha256.Sum256(raw))
	}
	notes = key("notes", []any{c.Signers, c.Threshold, c.Audience})
	return notes, key("lease", c), err
}

// look takes over what another worker has found.
func (s *source) look() {
	raw, cas, err := s.host.SharedData(s.notesKey)
	if err != nil || cas == s.notesCAS || len(raw) == 0 {
		return
	}
	s.notesCAS = cas
	notes, err := bundle.ParseState(raw)
	if err == nil {
		err = s.raise(notes)
	}
	if err != nil && !errors.Is(err, errSame) {
		s.host.Log(Error, Line("what another worker has found is refused", "bundle", s.name, "error", err))
	}
}

var errSame = errors.New("it is the one that is there")

// raise takes notes over that may follow what was found before.
func (s *source) raise(notes bundle.Notes) error {
	m, err := s.trust.Open(notes)
	if err != nil {
		return err
	}
	if err := s.accepts.Check(m, s.found, s.now()); err != nil {
		return err
	}
	if s.found != nil && m.Manifest == s.found.Manifest {
		return errSame
	}
	s.found = m
	return nil
}

// past says whether d has passed since a time. Where the clock has been set back
// behind that time nobody knows, and it has: to wait would be to sleep for as long
// as the clock was wrong.
func past(now, since time.Time, d time.Duration) bool {
	passed := now.Sub(since)
	return passed < 0 || passed >= d
}

// takeLease says whether this worker is the one that asks this time.
func (s *source) takeLease(now time.Time) bool {
	jitter := time.Duration(rand.Int64N(int64(s.poll)/4 + 1))
	longest := max(s.poll, time.Minute)
	wait := min(s.poll<<min(s.failures, 5), longest)
	s.polled, s.pause = now, wait+jitter
	raw, cas, err := s.host.SharedData(s.leaseKey)
	if err == nil && len(raw) == 8 {
		switch ahead := time.UnixMilli(int64(binary.BigEndian.Uint64(raw))).Sub(now); {
		case ahead > longest && !s.farLease:
			// A clock that was ahead has written it: nobody would ask until then.
			s.farLease = true
			s.host.Log(Warn, Line("a lease to poll is further ahead than one can be: it counts for nothing; the clock was set back", "bundle", s.name, "ahead", ahead))
		case ahead > 0 && ahead <= longest:
			return false
		}
	}
	until := binary.BigEndian.AppendUint64(nil, uint64(now.Add(wait-50*time.Millisecond).UnixMilli()))
	return s.host.SetSharedData(s.leaseKey, until, cas) == nil
}

// askNotes asks the origins, one after the other, for a manifest that is new, and
// for its policy note.
func (s *source) askNotes(now time.Time) {
	if !s.polling.IsZero() && !past(now, s.polling, 2*fetchTimeout*time.Duration(len(s.origins))) {
		return // the last asking is still on its way
	}
	s.polling = now
	s.askOrigin(rand.IntN(len(s.origins)), 0)
}

func (s *source) askOrigin(first, tried int) {
	if tried == len(s.origins) {
		s.failures++
		s.polling = time.Time{}
		s.host.Log(Warn, Line("no origin gives a bundle", "bundle", s.name, "failures", s.failures))
		return
	}
	o := s.origins[(first+tried)%len(s.origins)]
	failed := func(what string, err any) {
		s.host.Log(Warn, Line("an origin gives no bundle", "bundle", s.name, "cluster", o.Cluster, "of", what, "error", err))
		s.etag = ""
		s.askOrigin(first, tried+1)
	}
	err := s.get(o, "/"+bundle.PathManifest, s.etag, func(status, etag string, manifest []byte) {
		switch status {
		case "304":
			s.failures, s.polling = 0, time.Time{}
			return
		case "200":
		default:
			failed("manifest", "status "+status)
			return
		}
		if s.found != nil && string(manifest) == string(s.found.Notes.Manifest) {
			s.failures, s.polling, s.etag = 0, time.Time{}, etag
			return
		}
		err := s.get(o, "/"+bundle.PathPolicy, "", func(status, _ string, note []byte) {
			if status != "200" {
				failed("policy note", "status "+status)
				return
			}
			notes := bundle.Notes{PolicyNote: note, Manifest: manifest}
			if err := s.raise(notes); err != nil && !errors.Is(err, errSame) {
				failed("bundle", err)
				return
			}
			s.failures, s.polling, s.etag = 0, time.Time{}, etag
			s.share()
		}, bundle.MaxNote)
		if err != nil {
			failed("policy note", err)
		}
	}, bundle.MaxNote)
	if err != nil {
		failed("manifest", err)
	}
}

// share tells the other workers, unless one of them has found a later one.
func (s *source) share() {
	raw, cas, err := s.host.SharedData(s.notesKey)
	if err == nil && len(raw) > 0 {
		if notes, err := bundle.ParseState(raw); err == nil {
			if there, err := s.trust.Open(notes); err == nil && s.found.CheckSuccession(there) != nil {
				return
			}
		}
	}
	if s.host.SetSharedData(s.notesKey, bundle.AppendState(nil, s.found.Notes), cas) == nil {
		return
	}
	s.notesCAS = 0 // somebody was faster: look again
}

// retryInterval is how long the source waits before it tries again what failed: a
// policy that no origin served, a bundle that was refused and may be good later.
const retryInterval = time.Second

// open opens the bundle of the notes found, once its policy is here.
func (s *source) open(current *bundle.Bundle) *bundle.Bundle {
	if s.found == nil || current != nil && current.Manifest == s.found.Manifest || !past(s.now(), s.failed, retryInterval) {
		return nil
	}
	h := s.found.PolicyNote.PolicyHash
	if raw, here := s.raw[h]; here {
		clear(s.compiled)
		s.compiled[h] = raw
	}
	compiled, here := s.compiled[h]
	if !here {
		if s.fetches[h] == nil {
			s.fetch(h, policy.MaxSize, func(_ []uint32, ok bool) {
				if !ok {
					s.failed = s.now()
				}
			})
		}
		return nil
	}
	b, err := bundle.Open(s.found.Notes, compiled, s, s.trust)
	if err != nil {
		s.refuse(err)
		return nil
	}
	return b
}

// refuse says why what was found cannot be used, once, and waits before it is
// tried again.
func (s *source) refuse(err error) {
	s.failed = s.now()
	if text := err.Error(); text != s.refusal {
		s.refusal = text
		s.host.Log(Error, Line("a bundle was refused", "bundle", s.name, "error", text))
	}
}
