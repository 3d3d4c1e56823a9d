package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keystile/keystile/internal/testing/address"

	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies/table"
)

func startEnvoy(f *table.Fixture, workers int, overHTTP bool) (*server, error) {
	module, err := envoy.Module()
	if err != nil {
		return nil, err
	}
	built, err := os.Stat(module)
	if err != nil {
		return nil, err
	}
	warnIfOlder(module, built, "core", "wasmfilter")
	s, err := newServer("envoy", []int{1, 2}, f)
	if err != nil {
		return s, err
	}
	if overHTTP {
		if s.origin, err = startOrigin(f, filepath.Join(s.dir, "origin")); err != nil {
			return s, err
		}
	}
	config, err := s.envoyConfig(f, module)
	if err != nil {
		return s, err
	}
	s.log, s.own = newLog(readEnvoyLine), []string{"keystile: "}
	if s.envoy, err = envoy.Start(s.dir, config, workers, s.log.add); err != nil {
		return s, err
	}
	if err := s.ready(); err != nil {
		return s, err
	}
	return s, s.answers()
}

// readEnvoyLine finds a denial in a line of Envoy's log.
func readEnvoyLine(line string) (id, reason string) {
	_, rest, ok := strings.Cut(line, "keystile: denied ")
	var entry struct {
		RequestID string `json:"request_id"`
		Reason    string `json:"reason"`
	}
	if !ok || json.Unmarshal([]byte(rest), &entry) != nil {
		return "", ""
	}
	return entry.RequestID, entry.Reason
}

func (s *server) envoyConfig(f *table.Fixture, module string) (envoy.Object, error) {
	bundle := envoy.Object{"signers": []string{f.Signer}, "audience": table.Audience}
	var clusters []envoy.Object
	if s.origin == nil {
		bundle["inline"] = base64.StdEncoding.EncodeToString(f.Pack)
	} else {
		// The first origin is one that nobody answers at.
		dead, err := address.Free()
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, envoy.Cluster("dead", dead), envoy.Cluster("origin", s.origin.address))
		bundle["origins"] = []envoy.Object{
			{"cluster": "dead", "authority": "dead.test"},
			{"cluster": "origin", "authority": "origin.test", "path": "/bundles/" + f.Policy.Name, "token": originToken},
		}
		bundle["poll_interval"] = "500ms"
	}
	plugin, err := json.Marshal(envoy.Object{
		"bundles": envoy.Object{f.Policy.Name: bundle}, "client_ip": "forwarded", "check_sni": true, "ready_path": readyPath,
	})
	if err != nil {
		return nil, err
	}
	filters := []envoy.Object{envoy.Filter(module, string(plugin)), envoy.Router()}
	upstream := envoy.Cluster("upstream", s.upstream.address)
	upstream["typed_extension_protocol_options"] = envoy.Object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": envoy.Object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": envoy.Object{"http_protocol_options": envoy.Object{"enable_trailers": true}},
	}}
	clusters = append(clusters, upstream)
	return envoy.Object{"static_resources": envoy.Object{
		"listeners": []envoy.Object{
			envoy.Listener("https", s.https, s.dir, envoy.To("upstream"), filters, manage),
			envoy.Listener("http", s.http, "", envoy.To("upstream"), filters, managePlain),
		},
		"clusters": clusters,
	}}, nil
}

// manage sets up the connection manager as tables need it: they send the client's
// address by X-Forwarded-For, trailers, and the handshakes of WebSockets.
func manage(hcm envoy.Object) {
	hcm["xff_num_trusted_hops"] = 1
	hcm["http_protocol_options"] = envoy.Object{"allow_absolute_url": false, "enable_trailers": true}
	hcm["delayed_close_timeout"] = "0.05s" // a refused connection is waited for
	hcm["upgrade_configs"] = []envoy.Object{{"upgrade_type": "websocket"}}
}

// managePlain also ends the connection behind each answer to plain HTTP, which a
// filter cannot ask for (R5).
func managePlain(hcm envoy.Object) {
	manage(hcm)
	hcm["common_http_protocol_options"] = envoy.Object{"max_requests_per_connection": 1}
}

// readyPath is answered by the filter once its bundle is in force.
const readyPath = "/keystile-conformance/ready"

// ready waits until the workers have their bundle: each that answers says so
// itself.
func (s *server) ready() error {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	var last string
	good := 0
	for deadline := time.Now().Add(startWait); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := client.Get("http://" + s.http + readyPath)
		if err != nil {
			last, good = err.Error(), 0
			continue
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if last = string(body); response.StatusCode != http.StatusOK {
			good = 0
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if good++; good == 50 {
			return nil
		}
	}
	return fmt.Errorf("envoy has no bundle: %s\n%s", last, s.log.tail())
}

// originToken is the bearer token that the origin wants.
const originToken = "conformance-origin"

// origin serves a fixture's bundle in its directory form.
type origin struct {
	server  *http.Server
	address string
}

func startOrigin(f *table.Fixture, dir string) (*origin, error) {
	b, err := f.Open()
	if err != nil {
		return nil, err
	}
	if _, err := disk.WriteDir(filepath.Join(dir, "bundles", f.Policy.Name), b, f.Policy.Encode()); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	files := http.FileServer(http.Dir(dir))
	o := &origin{address: l.Addr().String()}
	o.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+originToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	})}
	go o.server.Serve(l)
	return o, nil
}
