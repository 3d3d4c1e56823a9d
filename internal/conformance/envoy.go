package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keystile/keystile/caddymodule/disk"
	"github.com/keystile/keystile/internal/table"
)

// wasmFilter is the filter under test; `make wasm` leaves it here.
const wasmFilter = "bin/keystile.wasm"

// object is a piece of Envoy's configuration.
type object map[string]any

func startEnvoy(f *table.Fixture, workers int, overHTTP bool) (*server, error) {
	envoy := cmp.Or(os.Getenv("ENVOY"), "bin/envoy")
	if _, err := os.Stat(envoy); err != nil {
		return nil, fmt.Errorf("%s is missing: fetch it with `make envoy`, or set ENVOY to your own", envoy)
	}
	filter, err := os.Stat(wasmFilter)
	if err != nil {
		return nil, fmt.Errorf("%s is missing: make it with `make wasm`", wasmFilter)
	}
	warnIfOlder(wasmFilter, filter, "core", "wasmfilter")
	s, err := newServer("envoy", []int{1, 2}, f)
	if err != nil {
		return s, err
	}
	if overHTTP {
		if s.origin, err = startOrigin(f, filepath.Join(s.dir, "origin")); err != nil {
			return s, err
		}
	}
	config, err := s.envoyConfig(f)
	if err != nil {
		return s, err
	}
	path := filepath.Join(s.dir, "envoy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return s, err
	}
	if err := s.start(exec.Command(envoy, "-c", path, "--disable-hot-restart", "--concurrency", strconv.Itoa(workers),
		"--log-level", "warning", "--component-log-level", "wasm:info", "--log-format", "%L %v"), readEnvoyLine, "keystile: "); err != nil {
		return s, err
	}
	return s, s.ready()
}

// readyPath is answered by the filter once its bundle is in force.
const readyPath = "/keystile-conformance/ready"

// ready waits until the workers have their bundle: each that answers says so
// itself.
func (s *server) ready() error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
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

func (s *server) envoyConfig(f *table.Fixture) ([]byte, error) {
	bundle := object{"signers": []string{f.Signer}, "audience": table.Audience}
	clusters := []object{cluster("upstream", s.upstream.address)}
	if s.origin == nil {
		bundle["inline"] = base64.StdEncoding.EncodeToString(f.Pack)
	} else {
		// The first origin is one that nobody answers at.
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, cluster("dead", "127.0.0.1:"+ports[0]), cluster("origin", s.origin.address))
		bundle["origins"] = []object{
			{"cluster": "dead", "authority": "dead.test"},
			{"cluster": "origin", "authority": "origin.test", "path": "/bundles/" + f.Policy.Name, "token": originToken},
		}
		bundle["poll_interval"] = "500ms"
	}
	plugin, err := json.Marshal(object{
		"bundles": object{f.Policy.Name: bundle}, "client_ip": "forwarded", "check_sni": true, "ready_path": readyPath,
	})
	if err != nil {
		return nil, err
	}
	listener := func(name, address string, tls bool) object {
		chain := object{"filters": []object{{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": object{
				"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"stat_prefix": name, "codec_type": "AUTO", "use_remote_address": true, "xff_num_trusted_hops": 1,
				"route_config": object{"virtual_hosts": []object{{
					"name": "all", "domains": []string{"*"},
					"routes": []object{{"match": object{"prefix": ""}, "route": object{"cluster": "upstream"}}},
				}}},
				"http_filters": []object{
					{"name": "keystile", "typed_config": object{
						"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
						"config": object{
							"name": "keystile", "root_id": "keystile", "failure_policy": "FAIL_RELOAD",
							"vm_config": object{
								"vm_id": "keystile", "runtime": "envoy.wasm.runtime.v8",
								"code": object{"local": object{"filename": wasmFilter}},
							},
							"configuration": object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": string(plugin)},
						},
					}},
					{"name": "envoy.filters.http.router", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
				},
			},
		}}}
		if tls {
			chain["transport_socket"] = object{"name": "envoy.transport_sockets.tls", "typed_config": object{
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
				"common_tls_context": object{
					"alpn_protocols": []string{"h2", "http/1.1"},
					"tls_certificates": []object{{
						"certificate_chain": object{"filename": filepath.Join(s.dir, "cert.pem")},
						"private_key":       object{"filename": filepath.Join(s.dir, "key.pem")},
					}},
				},
			}}
		}
		return object{
			"name": name, "address": socket(address), "filter_chains": []object{chain},
			"listener_filters": []object{{ // gives the filter the TLS server name
				"name":         "envoy.filters.listener.tls_inspector",
				"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
			}},
		}
	}
	return json.Marshal(object{"static_resources": object{
		"listeners": []object{listener("https", s.https, true), listener("http", s.http, false)},
		"clusters":  clusters,
	}})
}

func cluster(name, address string) object {
	return object{"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": object{
		"cluster_name": name,
		"endpoints":    []object{{"lb_endpoints": []object{{"endpoint": object{"address": socket(address)}}}}},
	}}
}

func socket(address string) object {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return object{"socket_address": object{"address": host, "port_value": n}}
}
