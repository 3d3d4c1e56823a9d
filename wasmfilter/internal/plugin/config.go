package plugin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
)

// Config is the plugin's configuration, one JSON object. Its field names are
// those of the Caddy module.
type Config struct {
	// Bundles are the bundles, by their signed names. A request is decided by
	// the one whose policy names its host.
	Bundles map[string]*BundleConfig `json:"bundles"`
	// OtherHosts says what becomes of requests for hosts that no policy names:
	// "refuse" (the default) or "pass".
	OtherHosts string `json:"other_hosts,omitempty"`
	// ClientIP says whose address limits of keys to IP addresses are about:
	// "peer" (the default), the other end of the connection, or "forwarded",
	// where Envoy's own count of trusted hops takes it from X-Forwarded-For.
	ClientIP string `json:"client_ip,omitempty"`
	// ReadyPath is answered by the filter: 200 if every bundle is in force, else
	// 503, by HTTP and HTTPS.
	ReadyPath string `json:"ready_path,omitempty"`
	// FilterState tells later filters and the access log also of requests that are
	// passed on, as they are told of denials.
	FilterState bool `json:"filter_state,omitempty"`
	// CheckSNI compares the TLS server name with the host.
	CheckSNI bool `json:"check_sni,omitempty"`
}

// BundleConfig says where a bundle comes from and what of it is believed.
type BundleConfig struct {
	// Inline is the packed file, in base64.
	Inline string `json:"inline,omitempty"`
	// Origins serve the bundle's directory form; they are tried in turn.
	Origins []Origin `json:"origins,omitempty"`
	// PollInterval is how often they are asked for a new bundle. Default: 5s.
	PollInterval Duration `json:"poll_interval,omitempty"`

	Signers   []string `json:"signers"`
	Threshold int      `json:"threshold,omitempty"`
	Audience  string   `json:"audience,omitempty"`

	MinVersion       int64 `json:"min_version,omitempty"`
	MinPolicyVersion int64 `json:"min_policy_version,omitempty"`

	MaxAge    Duration `json:"max_age,omitempty"`
	ClockSkew Duration `json:"clock_skew,omitempty"`

	RecordCache int64 `json:"record_cache,omitempty"`
	NodeCache   int64 `json:"node_cache,omitempty"`
	TokenCache  int64 `json:"token_cache,omitempty"`

	// TLSTerminators is refused: see [errTerminators].
	TLSTerminators json.RawMessage `json:"tls_terminators,omitempty"`
}

// errTerminators: what Envoy calls a request's source address is the socket's or one
// that a header names, by settings that the filter does not see; and where it is the
// socket's, Envoy writes X-Forwarded-Proto anew.
var errTerminators = errors.New("tls_terminators cannot be used in Envoy, which does not tell a filter whose socket a request came by: let the proxy in front speak TLS to Envoy")

// The values of other_hosts and client_ip.
const (
	refuse    = "refuse"
	pass      = "pass"
	peer      = "peer"
	forwarded = "forwarded"
)

// Duration is text like "15m", or nanoseconds.
type Duration time.Duration

// UnmarshalJSON reads either form.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		return json.Unmarshal(b, (*int64)(d))
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("duration %q: write it like 15m", text)
	}
	*d = Duration(parsed)
	return nil
}

// maxConfig is the longest configuration, in bytes. Larger bundles are not to be
// given inline.
const maxConfig = 8 << 20

// parseConfig reads a configuration. A name that is not known, or given twice, is
// an error.
func parseConfig(raw []byte) (*Config, error) {
	if len(raw) == 0 {
		return nil, errors.New("the configuration is empty: name a bundle, as in {\"bundles\": {\"shop\": {…}}}")
	}
	if len(raw) > maxConfig {
		return nil, fmt.Errorf("the configuration has %d bytes: at most %d are possible; large bundles do not belong into it", len(raw), maxConfig)
	}
	if bundle.HoldsPrivateKey(string(raw)) { // wherever it stands: an error could quote it
		return nil, fmt.Errorf("the configuration: %w", bundle.ErrPrivateKey)
	}
	if asJSON, ok := structure(raw); ok {
		raw = asJSON
	} else if !utf8.Valid(raw) {
		return nil, errors.New("the configuration is not UTF-8")
	}
	if err := checkNames(raw, reflect.TypeFor[Config]()); err != nil {
		return nil, err
	}
	c := new(Config)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("the configuration: something follows its object")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) check() error {
	if len(c.Bundles) == 0 {
		return errors.New("the configuration names no bundle: nothing could be decided")
	}
	if c.OtherHosts != "" && c.OtherHosts != refuse && c.OtherHosts != pass {
		return fmt.Errorf("other_hosts %q: use %s or %s", c.OtherHosts, refuse, pass)
	}
	if c.ClientIP != "" && c.ClientIP != peer && c.ClientIP != forwarded {
		return fmt.Errorf("client_ip %q: use %s or %s", c.ClientIP, peer, forwarded)
	}
	if c.ReadyPath != "" && c.ReadyPath[0] != '/' {
		return fmt.Errorf("ready_path %q: it begins with a slash", c.ReadyPath)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Bundles)) {
		if err := c.Bundles[name].check(); err != nil {
			return fmt.Errorf("bundle %q: %w", name, err)
		}
	}
	return nil
}

// check says what keeps a bundle from ever being used, whatever its source serves.
func (c *BundleConfig) check() error {
	switch {
	case c == nil:
		return errors.New("it is empty: give it a source and a signer")
	case c.TLSTerminators != nil:
		return errTerminators
	case (c.Inline == "") == (len(c.Origins) == 0):
		return errors.New("it needs one source: its packed file in base64 as inline, or origins")
	}
	return nil
}

// core is the verifier's part of a bundle's configuration.
func (c *BundleConfig) core() core.Config {
	out := core.Config{
		RecordCache: c.RecordCache, NodeCache: c.NodeCache, TokenCache: c.TokenCache,
		ClockSkew: time.Duration(c.ClockSkew), MaxAge: time.Duration(c.MaxAge),
		MinVersion: bundle.MinVersion{Version: c.MinVersion, PolicyVersion: c.MinPolicyVersion},
	}
	// One verifier in each worker: less than in a server that has one.
	out.RecordCache = orDefault(out.RecordCache, 16<<20)
	out.NodeCache = orDefault(out.NodeCache, 16<<20)
	out.TokenCache = orDefault(out.TokenCache, 2<<20)
	return out
}

func orDefault(n, or int64) int64 {
	if n == 0 {
		return or
	}
	return n
}

func (c *BundleConfig) trust(name string) (*bundle.Trust, error) {
	return bundle.ConfiguredTrust(name, c.Audience, c.Threshold, c.Signers...)
}

// inline is the bundle that the configuration holds.
func (c *BundleConfig) inline(trust *bundle.Trust) (*bundle.Bundle, error) {
	raw, err := base64.StdEncoding.DecodeString(c.Inline)
	if err != nil {
		return nil, fmt.Errorf("inline: it is not the base64 of a packed file: %w", err)
	}
	pack, err := bundle.OpenPack(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		return nil, fmt.Errorf("inline: %w", err)
	}
	b, err := bundle.Open(pack.Notes, pack.Compiled, pack, trust)
	if err != nil {
		return nil, fmt.Errorf("inline: %w", err)
	}
	return b, nil
}

// parsePeer reads an address as Envoy writes it, "ip:port". An address with port
// 0 was taken from X-Forwarded-For and is no peer's.
func parsePeer(s []byte) (addr netip.Addr, real bool) {
	ap, err := netip.ParseAddrPort(string(s))
	if err != nil {
		return netip.Addr{}, false
	}
	return ap.Addr(), ap.Port() != 0
}
