package main

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keystile/keystile/internal/table"
)

// wasmFilter is the filter under test; `make wasm` leaves it here.
const wasmFilter = "bin/keystile.wasm"

// object is a piece of Envoy's configuration.
type object map[string]any

func startEnvoy(f *table.Fixture, workers int) (*server, error) {
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
	config, err := s.envoyConfig(f)
	if err != nil {
		return s, err
	}
	path := filepath.Join(s.dir, "envoy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return s, err
	}
	return s, s.start(exec.Command(envoy, "-c", path, "--disable-hot-restart", "--concurrency", strconv.Itoa(workers),
		"--log-level", "warning", "--component-log-level", "wasm:info", "--log-format", "%L %v"), readEnvoyLine, "keystile: ")
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
	plugin, err := json.Marshal(object{
		"bundles": object{f.Policy.Name: object{
			"inline": base64.StdEncoding.EncodeToString(f.Pack), "signers": []string{f.Signer}, "audience": table.Audience,
		}},
		"client_ip": "forwarded", "check_sni": true,
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
		"clusters": []object{{
			"name": "upstream", "type": "STATIC", "load_assignment": object{
				"cluster_name": "upstream",
				"endpoints":    []object{{"lb_endpoints": []object{{"endpoint": object{"address": socket(s.upstream.address)}}}}},
			},
		}},
	}})
}

func socket(address string) object {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return object{"socket_address": object{"address": host, "port_value": n}}
}
