package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// httpConfig is the http app as it is written: what stands around a handler, before and
// behind it, which Caddy's decoded modules do not tell.
type httpConfig struct {
	HTTPPort  int                      `json:"http_port"`
	HTTPSPort int                      `json:"https_port"`
	Servers   map[string]*serverConfig `json:"servers"`
}

type serverConfig struct {
	Listen           []string `json:"listen"`
	ListenerWrappers []struct {
		Wrapper string `json:"wrapper"`
	} `json:"listener_wrappers"`
	Routes      []*routeConfig          `json:"routes"`
	NamedRoutes map[string]*routeConfig `json:"named_routes"`
	Errors      struct {
		Routes []*routeConfig `json:"routes"`
	} `json:"errors"`
}

// readHTTPConfig reads the http app that is being loaded. Caddy keeps it to itself, until
// the app is there. Where it is not found, a configuration that cannot be looked through
// is not loaded.
func readHTTPConfig(ctx caddy.Context) (*httpConfig, error) {
	config, err := private[*caddy.Config](&ctx, "cfg")
	if err != nil {
		return nil, err
	}
	if *config == nil || len((*config).AppsRaw["http"]) == 0 {
		return nil, errHidden
	}
	c := new(httpConfig)
	return c, json.Unmarshal((*config).AppsRaw["http"], c)
}

var errHidden = errors.New("this version of Caddy keeps its configuration where keystile cannot look through it: build with the version that keystile's go.mod names")

// routeConfig is a route with its matchers and handlers.
type routeConfig struct {
	group    string
	terminal bool
	hosts    []string // that it names; nil for any
	rest     string   // of its matchers, as text; "" if they match every request to a host
	negates  string   // the rest that this one is the opposite of, or ""
	address  bool     // the rest asks for the connection alone, which nobody misreads
	guests   bool     // the rest lets in only some addresses of clients
	handle   []*handlerConfig

	rewrites int // how many handlers before it, in the order of the text, rewrite
}

// UnmarshalJSON reads a route.
func (r *routeConfig) UnmarshalJSON(b []byte) error {
	var in struct {
		Group    string                       `json:"group"`
		Terminal bool                         `json:"terminal"`
		Match    []map[string]json.RawMessage `json:"match"`
		Handle   []*handlerConfig             `json:"handle"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	r.group, r.terminal, r.handle = in.Group, in.Terminal, in.Handle
	return r.readMatchers(in.Match)
}

func (r *routeConfig) readMatchers(sets []map[string]json.RawMessage) error {
	anyHost := len(sets) == 0
	everything, hostsAlone := anyHost, true // one of the sets is empty; all have nothing but hosts
	r.address, r.guests = true, len(sets) > 0
	for _, set := range sets {
		var hosts caddyhttp.MatchHost
		raw, named := set["host"]
		if named {
			if err := json.Unmarshal(raw, &hosts); err != nil {
				return err
			}
			if err := hosts.Provision(caddy.Context{}); err != nil { // names of other scripts, and in upper case
				return err
			}
			r.hosts = append(r.hosts, hosts...)
			delete(set, "host")
		} else {
			anyHost = true
		}
		if path := string(set["path"]); path == `["*"]` || path == `["/*"]` {
			delete(set, "path")
		}
		everything = everything || !named && len(set) == 0
		hostsAlone = hostsAlone && len(set) == 0
		r.guests = r.guests && (set["remote_ip"] != nil || set["client_ip"] != nil)
		for name := range set {
			r.address = r.address && slices.Contains([]string{"remote_ip", "client_ip", "protocol"}, name)
		}
	}
	if anyHost {
		r.hosts = nil
	}
	if everything || hostsAlone {
		return nil
	}
	var err error
	if r.rest, err = textOf(sets); err != nil {
		return err
	}
	if not, alone := sets[0]["not"]; alone && len(sets) == 1 && len(sets[0]) == 1 {
		var negated []map[string]json.RawMessage
		if json.Unmarshal(not, &negated) == nil {
			r.negates, err = textOf(negated)
		}
	}
	return err
}

// textOf is a JSON text that is the same for equal matchers.
func textOf(sets []map[string]json.RawMessage) (string, error) {
	b, err := json.Marshal(sets) // with names in order, and compact
	return string(b), err
}

// handlerConfig is a handler, with what is looked at of it.
type handlerConfig struct {
	kind     string
	keystile Handler        // of kind "keystile"
	routes   []*routeConfig // of a subroute, or for responses
	invokes  string         // the name of a route
	upstream []string       // where a reverse_proxy sends to
	asks     bool           // a reverse_proxy that asks somebody whether to go on: forward_auth
	rewrites string         // how a rewrite changes the URL; "" if it does not
	fixed    bool           // the URL is then one that no client chooses
	location string         // of a redirect
	passes   bool           // a file_server that lets go on what is no file
}

// UnmarshalJSON reads a handler.
func (h *handlerConfig) UnmarshalJSON(b []byte) error {
	var kind struct {
		Handler string `json:"handler"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return err
	}
	switch h.kind = kind.Handler; h.kind {
	case "keystile":
		return json.Unmarshal(b, &h.keystile)
	case "subroute":
		var in struct {
			Routes []*routeConfig `json:"routes"`
		}
		err := json.Unmarshal(b, &in)
		h.routes = in.Routes
		return err
	case "invoke":
		var in caddyhttp.Invoke
		err := json.Unmarshal(b, &in)
		h.invokes = in.Name
		return err
	case "reverse_proxy", "intercept":
		return h.readProxy(b)
	case "file_server":
		var in struct {
			Passes bool `json:"pass_thru"`
		}
		err := json.Unmarshal(b, &in)
		h.passes = in.Passes
		return err
	case "rewrite":
		return h.readRewrite(b)
	case "static_response":
		var in struct {
			Headers map[string][]string `json:"headers"`
		}
		err := json.Unmarshal(b, &in)
		for name, values := range in.Headers {
			if strings.EqualFold(name, "Location") && len(values) > 0 {
				h.location = values[0]
			}
		}
		return err
	}
	if handlerJSON.Match(b) {
		return h.readOther(b)
	}
	return nil
}

// readOther finds routes in a handler that is not known, wherever it keeps them.
func (h *handlerConfig) readOther(b []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(b, &list) == nil {
		for _, raw := range list {
			if err := h.readOther(raw); err != nil {
				return err
			}
		}
		return nil
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(b, &object) != nil {
		return nil
	}
	if object["handle"] != nil {
		r := new(routeConfig)
		h.routes = append(h.routes, r)
		return json.Unmarshal(b, r)
	}
	if string(object["handler"]) == `"keystile"` {
		inner := new(handlerConfig)
		h.routes = append(h.routes, &routeConfig{handle: []*handlerConfig{inner}})
		return json.Unmarshal(b, inner)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if err := h.readOther(object[name]); err != nil {
			return err
		}
	}
	return nil
}

func (h *handlerConfig) readProxy(b []byte) error {
	var in struct {
		Upstreams []struct {
			Dial string `json:"dial"`
		} `json:"upstreams"`
		Dynamic json.RawMessage `json:"dynamic_upstreams"`
		Rewrite struct {
			Method string `json:"method"`
		} `json:"rewrite"`
		Handle []struct {
			Routes []*routeConfig `json:"routes"`
		} `json:"handle_response"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	for _, u := range in.Upstreams {
		h.upstream = append(h.upstream, canonicalDial(u.Dial))
	}
	if len(in.Dynamic) > 0 {
		var text bytes.Buffer
		if err := json.Compact(&text, in.Dynamic); err != nil {
			return err
		}
		h.upstream = append(h.upstream, text.String())
	}
	for _, on := range in.Handle {
		h.routes = append(h.routes, on.Routes...)
	}
	h.asks = in.Rewrite.Method != "" && len(in.Handle) > 0
	return nil
}

// canonicalDial is one text for all ways to name this machine.
func canonicalDial(dial string) string {
	dial = strings.TrimPrefix(dial, "tcp/")
	for _, here := range []string{"127.0.0.1:", "[::1]:", ":"} {
		if rest, ok := strings.CutPrefix(dial, here); ok {
			return "localhost:" + rest
		}
	}
	return dial
}

func (h *handlerConfig) readRewrite(b []byte) error {
	var in struct {
		StripPrefix json.RawMessage `json:"strip_path_prefix"`
		StripSuffix json.RawMessage `json:"strip_path_suffix"`
		Substring   json.RawMessage `json:"uri_substring"`
		Expression  json.RawMessage `json:"path_regexp"`
		URI         json.RawMessage `json:"uri"`
		Query       json.RawMessage `json:"query"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	for _, change := range []struct {
		directive string
		to        json.RawMessage
	}{
		{"uri strip_prefix", in.StripPrefix}, {"uri strip_suffix", in.StripSuffix}, {"uri replace", in.Substring},
		{"uri path_regexp", in.Expression}, {"rewrite", in.URI}, {"uri query", in.Query},
	} {
		if change.to != nil {
			h.rewrites = fmt.Sprintf("`%s` (%s)", change.directive, change.to)
			h.fixed = change.directive == "rewrite" && bytes.HasPrefix(change.to, []byte(`"/`)) && !bytes.ContainsRune(change.to, '{')
			break
		}
	}
	return nil
}
