package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/keystile/keystile/internal/testing/address"
)

// ports are those that the demo's Caddy listens at.
type ports struct{ https, http, api int }

const defaultPorts = "8443,8080,9000"

const choose = "stop what listens there, or choose other ports, as in `make run PORTS=9443,9080,9001` (HTTPS, HTTP, and the API behind)"

// takePorts takes ports as they are listed, for as long as the process runs. Caddy would
// share them in silence with another Caddy, and each would answer the other's calls.
func takePorts(listed string) (p ports, err error) {
	err = address.TakeListed(listed, defaultPorts, choose, &p.https, &p.http, &p.api)
	return p, err
}

// environment is what the Caddyfile knows them by.
func (p ports) environment() []string {
	return []string{fmt.Sprint("KEYSTILE_HTTPS=", p.https), fmt.Sprint("KEYSTILE_HTTP=", p.http), fmt.Sprint("KEYSTILE_API=", p.api)}
}

const (
	readyWait = 2 * time.Minute
	// asked is how often each port has to prove whose it is, on a connection of its own:
	// one that is shared gives about half of them to somebody else.
	asked = 20
)

// errOther is the error of a port that somebody else answers at.
var errOther = errors.New("somebody else answers there")

// ready waits until Caddy answers at all ports, and each time with the nonce that this
// demo has given it.
func (d *demo) ready(ctx context.Context, nonce string, exited chan error) error {
	deadline := time.After(readyWait)
	for _, p := range []struct {
		port int
		ask  func() (string, error)
	}{{d.ports.api, d.askAPI}, {d.ports.http, d.askHTTP}, {d.ports.https, d.askHTTPS}} {
		for proven := 0; proven < asked; {
			got, err := p.ask()
			if err == nil && got != nonce || errors.Is(err, errOther) {
				return fmt.Errorf("port %d: %w too: %s", p.port, errOther, choose)
			}
			if err == nil {
				proven++
				continue
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-exited:
				exited <- err
				return fmt.Errorf("caddy ended (%v)", err)
			case <-deadline:
				return fmt.Errorf("caddy does not answer at port %d (%w)", p.port, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// askAPI asks the API for its nonce.
func (d *demo) askAPI() (string, error) {
	response, _, err := ask("http", "localhost", d.ports.api, nil)
	if err != nil {
		return "", err
	}
	return response.Header.Get("Demo"), nil
}

// askHTTP asks by plain HTTP.
func (d *demo) askHTTP() (string, error) {
	_, body, err := ask("http", "demo.localhost", d.ports.http, nil)
	return body, err
}

// askHTTPS asks by HTTPS: only this demo's own CA is believed.
func (d *demo) askHTTPS() (string, error) {
	root, err := os.ReadFile(d.rootCert())
	if err != nil {
		return "", err
	}
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(root)
	_, body, err := ask("https", "demo.localhost", d.ports.https, own)
	var stranger *tls.CertificateVerificationError
	if errors.As(err, &stranger) {
		return "", errOther
	}
	return body, err
}

// ask sends a request on a connection of its own.
func ask(scheme, host string, port int, roots *x509.CertPool) (*http.Response, string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		},
	}}
	response, err := client.Get(fmt.Sprintf("%s://%s:%d/", scheme, host, port))
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1000))
	return response, string(body), err
}
