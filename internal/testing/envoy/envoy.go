// Package envoy runs a real Envoy with the filter, for tests and measurements.
//
// [Listener], [Filter] and [Cluster] make the parts of a configuration, and
// [Start] runs Envoy with it until [Process.Close].
package envoy

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Object is a piece of a configuration.
type Object map[string]any

// Root is the root of the repository, as seen from where the process runs.
func Root() string {
	for dir := "."; ; dir = filepath.Join(dir, "..") {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if abs, err := filepath.Abs(dir); err != nil || abs == "/" {
			return "."
		}
	}
}

// Binary is Envoy's program: $ENVOY, or the one that `make envoy` fetches.
func Binary() (string, error) {
	path := cmp.Or(os.Getenv("ENVOY"), "bin/envoy")
	if !filepath.IsAbs(path) {
		path = filepath.Join(Root(), path)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is missing: fetch it with `make envoy`, or set ENVOY to your own", path)
	}
	return path, nil
}

// Module is the filter; `make wasm` builds it.
func Module() (string, error) {
	path, err := filepath.Abs(filepath.Join(Root(), "bin/keystile.wasm"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is missing: make it with `make wasm`", path)
	}
	return path, nil
}

// Filter is the filter with a configuration, which is given as a string.
func Filter(module, configuration string) Object {
	return Object{"name": "keystile", "typed_config": Object{
		"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
		"config": Object{
			"name": "keystile", "root_id": "keystile", "failure_policy": "FAIL_RELOAD",
			"vm_config": Object{
				"vm_id": "keystile", "runtime": "envoy.wasm.runtime.v8",
				"code": Object{"local": Object{"filename": module}},
			},
			"configuration": Object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration},
		},
	}}
}

// Router is the last filter of every list.
func Router() Object {
	return Object{"name": "envoy.filters.http.router", "typed_config": Object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
}

// Listener listens at an address. With certificates, a folder with cert.pem and
// key.pem, it does so by TLS; without, it is one for plain HTTP. Routes are tried in
// turn; hcm changes the connection manager's configuration.
func Listener(name, address, certificates string, routes []Object, filters []Object, hcm func(Object)) Object {
	manager := manager(name, routes, filters)
	if certificates == "" {
		plain(manager)
	}
	if hcm != nil {
		hcm(manager)
	}
	chain := Object{"filters": []Object{connectionManager(manager)}}
	if certificates != "" {
		context := serverTLS(certificates)
		context["alpn_protocols"] = []string{"h2", "http/1.1"}
		chain["transport_socket"] = Object{"name": "envoy.transport_sockets.tls", "typed_config": Object{
			"@type":              "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
			"common_tls_context": context,
		}}
	}
	return Object{
		"name": name, "address": Socket(address), "filter_chains": []Object{chain},
		"listener_filters": []Object{{ // gives the filter the TLS server name
			"name":         "envoy.filters.listener.tls_inspector",
			"typed_config": Object{"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
		}},
	}
}

// QUIC is [Listener] for HTTP/3, at a UDP address.
func QUIC(name, address, certificates string, routes []Object, filters []Object) Object {
	manager := manager(name, routes, filters)
	manager["codec_type"], manager["http3_protocol_options"] = "HTTP3", Object{}
	socket := Socket(address)
	socket["socket_address"].(Object)["protocol"] = "UDP"
	return Object{
		"name": name, "address": socket, "udp_listener_config": Object{"quic_options": Object{}},
		"filter_chains": []Object{{
			"filters": []Object{connectionManager(manager)},
			"transport_socket": Object{"name": "envoy.transport_sockets.quic", "typed_config": Object{
				"@type":                  "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport",
				"downstream_tls_context": Object{"common_tls_context": serverTLS(certificates)},
			}},
		}},
	}
}

func manager(name string, routes, filters []Object) Object {
	return Object{
		"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": name, "codec_type": "AUTO", "use_remote_address": true,
		"http_protocol_options": Object{"allow_absolute_url": false},
		"route_config":          Object{"virtual_hosts": []Object{{"name": "all", "domains": []string{"*"}, "routes": routes}}},
		"http_filters":          filters,
	}
}

// plain is what a listener for plain HTTP needs so that the filter answers whatever
// is sent, and the connection is closed behind its answer: by itself Envoy refuses
// upgrades and CONNECT, and invites a body, before the filter is asked.
func plain(manager Object) {
	manager["common_http_protocol_options"] = Object{"max_requests_per_connection": 1}
	manager["http_protocol_options"].(Object)["ignore_http_11_upgrade"] = []Object{{"safe_regex": Object{"regex": ".*"}}}
	manager["upgrade_configs"] = []Object{{"upgrade_type": "CONNECT"}}
	manager["proxy_100_continue"] = true
}

func connectionManager(manager Object) Object {
	return Object{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
}

func serverTLS(certificates string) Object {
	return Object{"tls_certificates": []Object{{
		"certificate_chain": Object{"filename": filepath.Join(certificates, "cert.pem")},
		"private_key":       Object{"filename": filepath.Join(certificates, "key.pem")},
	}}}
}

// To routes everything to a cluster.
func To(cluster string) []Object {
	return []Object{{"match": Object{"prefix": ""}, "route": Object{"cluster": cluster}}}
}

// Cluster is a cluster of one address.
func Cluster(name, address string) Object {
	return Object{"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": Object{
		"cluster_name": name,
		"endpoints":    []Object{{"lb_endpoints": []Object{{"endpoint": Object{"address": Socket(address)}}}}},
	}}
}

// Socket is an address in Envoy's terms.
func Socket(address string) Object {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return Object{"socket_address": Object{"address": host, "port_value": n}}
}

// Process is a running Envoy.
type Process struct {
	*exec.Cmd
	exited chan error

	mu    sync.Mutex
	lines []string
}

// startWait is how long Envoy may take: it compiles the filter for each worker.
const startWait = 3 * time.Minute

// Start runs Envoy with a configuration, which it writes into dir, until it
// listens at each address of TCP in it. line gets every line of the log; it may be nil.
//
// With one worker Envoy shares no port: one that is busy is an error. Several workers
// need sockets of their own, so that each gets its share of connections.
func Start(dir string, config Object, workers int, line func(string)) (*Process, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	if workers == 1 {
		for _, l := range config["static_resources"].(Object)["listeners"].([]Object) {
			l["enable_reuse_port"] = false
		}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	listening, err := addresses(raw)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, err
	}
	p := &Process{exited: make(chan error, 1)}
	p.Cmd = exec.Command(binary, "-c", path, "--disable-hot-restart", "--concurrency", strconv.Itoa(workers),
		"--log-level", "warning", "--component-log-level", "wasm:info", "--log-format", "%L %v")
	stderr, err := p.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.Cmd.Start(); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
			if line != nil {
				line(lines.Text())
			}
		}
	}()
	go func() { <-read; p.exited <- p.Wait() }()
	for deadline := time.Now().Add(startWait); len(listening) > 0; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-p.exited:
			p.exited <- err
			return p, fmt.Errorf("envoy ended: %v\n%s", err, p.Log())
		default:
		}
		if conn, err := net.Dial("tcp", listening[0]); err == nil {
			conn.Close()
			listening = listening[1:]
		} else if time.Now().After(deadline) {
			return p, fmt.Errorf("envoy does not answer at %s\n%s", listening[0], p.Log())
		}
	}
	return p, nil
}

// addresses are those where Envoy listens by TCP with a configuration.
func addresses(config []byte) (all []string, err error) {
	type listener struct {
		Address struct {
			Socket struct {
				Protocol, Address string
				Port              int `json:"port_value"`
			} `json:"socket_address"`
		}
	}
	var c struct {
		Admin  *listener
		Static struct{ Listeners []listener } `json:"static_resources"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	if c.Admin != nil {
		c.Static.Listeners = append(c.Static.Listeners, *c.Admin)
	}
	for _, l := range c.Static.Listeners {
		if s := l.Address.Socket; s.Protocol != "UDP" {
			all = append(all, net.JoinHostPort(s.Address, strconv.Itoa(s.Port)))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("envoy is to listen nowhere")
	}
	return all, nil
}

// Log is what Envoy has logged last.
func (p *Process) Log() string {
	lines := p.Lines()
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Lines are all lines that Envoy has logged.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// Close ends Envoy.
func (p *Process) Close() error {
	if p == nil || p.Process == nil {
		return nil
	}
	p.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.exited:
		p.exited <- err
		return nil
	case <-time.After(time.Minute):
		p.Process.Kill()
		return errors.New("envoy did not end")
	}
}
