package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"

	"github.com/keystile/keystile/policies/table"
)

// caddyBinary is the one under test; `make build` leaves it here.
const caddyBinary = "bin/caddy"

var caddyfile = template.Must(template.New("").Parse(`{
	http_port {{.HTTP}}
	https_port {{.HTTPS}}
	default_bind 127.0.0.1
	default_sni localhost
	fallback_sni localhost
	admin off
	skip_install_trust
	storage file_system {{.Dir}}/storage
	log default {
		output stderr
		format json
		level DEBUG
	}
	servers {
		trusted_proxies static 127.0.0.1/32
		trusted_proxies_strict
	}
	keystile {
		bundle {{.Name}} {
			file {{.Dir}}/bundle.keystile
			signer {{.Signer}}
			state {{.Dir}}/state
			audience {{.Audience}}
		}
	}
}
(edge) {
	keystile {{.Name}}
	reverse_proxy {{.Upstream}}
}
http:// {
	import edge
}
https:// {
	tls {{.Dir}}/cert.pem {{.Dir}}/key.pem
	import edge
}
`))

func startCaddy(f *table.Fixture) (*server, error) {
	binary, err := os.Stat(caddyBinary)
	if err != nil {
		return nil, fmt.Errorf("%s is missing: make it with `make build`", caddyBinary)
	}
	warnIfOlder(caddyBinary, binary, "core", "caddymodule", "policies")
	s, err := newServer("caddy", []int{1, 2, 3}, f)
	if err != nil {
		return s, err
	}
	s.setsID = true
	if err := os.WriteFile(filepath.Join(s.dir, "bundle.keystile"), f.Pack, 0o600); err != nil {
		return s, err
	}
	config, err := os.Create(filepath.Join(s.dir, "Caddyfile"))
	if err != nil {
		return s, err
	}
	defer config.Close()
	_, http, _ := net.SplitHostPort(s.http)
	_, https, _ := net.SplitHostPort(s.https)
	if err := caddyfile.Execute(config, map[string]string{
		"HTTP": http, "HTTPS": https, "Dir": s.dir, "Name": f.Policy.Name, "Signer": f.Signer,
		"Audience": table.Audience, "Upstream": s.upstream.address,
	}); err != nil {
		return s, err
	}
	caddy := exec.Command(caddyBinary, "run", "--config", config.Name(), "--adapter", "caddyfile")
	caddy.Env = append(os.Environ(), "XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir)
	return s, s.start(caddy, readCaddyLine)
}

// readCaddyLine finds a denial in a line of Caddy's log.
func readCaddyLine(line string) (id, reason string) {
	var entry struct {
		Logger    string `json:"logger"`
		Message   string `json:"msg"`
		RequestID string `json:"request_id"`
		Reason    string `json:"reason"`
	}
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Logger != "http.handlers.keystile" || entry.Message != "denied" {
		return "", ""
	}
	return entry.RequestID, entry.Reason
}
