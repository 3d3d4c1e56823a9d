// Package canary shows that a server keeps secrets to itself: it sends requests that
// carry marked secrets wherever a client could put them, and looks for the secrets, in
// whatever form, in all that the server has written (security requirement R74).
package canary

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Requests are requests of HTTP/1.1, by what is odd about them, that carry a secret to
// a path of a host. Each asks for the connection to be closed behind its answer.
func Requests(host, path, secret string) map[string]string {
	line := func(method, target, host string, headers ...string) string {
		return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(headers, "Connection: close"), "\r\n") + "\r\n\r\n"
	}
	get := func(headers ...string) string { return line("GET", path, host, headers...) }
	asked := func(query string) string { return line("GET", path+"?"+query, host) }
	basic := base64.StdEncoding.EncodeToString([]byte("user:" + secret))
	return map[string]string{
		"X-Api-Key":               get("X-Api-Key: " + secret),
		"Bearer":                  get("Authorization: Bearer " + secret),
		"Basic":                   get("Authorization: Basic " + basic),
		"another scheme":          get("Authorization: Token " + secret),
		"proxy's":                 get("Proxy-Authorization: Bearer " + secret),
		"two lines":               get("X-Api-Key: "+secret, "X-Api-Key: "+secret),
		"two headers":             get("X-Api-Key: "+secret, "Authorization: Bearer "+secret),
		"alias":                   get("X_Api_Key: " + secret),
		"alias with a dot":        get("X.Api.Key: " + secret),
		"joined":                  get("X-Api-Key: " + secret + ", " + secret),
		"quoted":                  get(`X-Api-Key: "` + secret + `"`),
		"method override":         get("X-Api-Key: "+secret, "X-HTTP-Method-Override: "+secret),
		"cookie":                  get("Cookie: session=1; key=" + secret),
		"referrer":                get("Referer: https://shop.example/?key=" + secret),
		"origin":                  get("Origin: https://" + secret),
		"user agent":              get("User-Agent: " + secret),
		"forwarded":               get("X-Forwarded-For: "+secret, "Forwarded: for="+secret, "Via: 1.1 "+secret),
		"identity":                get("Keystile-Key-Id: " + secret),
		"request ID":              get("X-Request-Id: " + secret),
		"unknown header":          get("X-Custom: key=" + secret),
		"name of a header":        get(secret + ": 1"),
		"no colon":                get("X-Api-Key " + secret),
		"beside the good one":     get("X-Api-Key: "+secret, "X-Custom: "+basic),
		"WebSocket":               line("GET", path, host, "X-Api-Key: "+secret, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
		"subprotocol":             line("GET", path, host, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Protocol: key."+secret, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
		"upgrade":                 line("GET", path, host, "X-Api-Key: "+secret, "Connection: Upgrade", "Upgrade: "+secret),
		"trailer":                 line("POST", path, host, "X-Api-Key: "+secret, "Transfer-Encoding: chunked", "Trailer: X-Api-Key", "") + "0\r\nX-Api-Key: " + secret + "\r\n\r\n",
		"body":                    line("POST", path, host, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(secret))) + secret,
		"type of the body":        line("POST", path, host, "X-Api-Key: "+secret, "Content-Type: application/"+secret, "Content-Length: 0"),
		"another method":          line("DELETE", path, host, "X-Api-Key: "+secret),
		"method":                  line(secret, path, host),
		"no route":                line("GET", "/elsewhere", host, "X-Api-Key: "+secret),
		"dot segments":            line("GET", path+"/../"+secret, host, "X-Api-Key: "+secret),
		"absolute target":         line("GET", "https://"+host+path+"?key="+secret, host, "X-Api-Key: "+secret),
		"userinfo":                line("GET", "https://user:"+secret+"@"+host+path, host),
		"CONNECT":                 line("CONNECT", host+":443", host, "X-Api-Key: "+secret),
		"CONNECT to it":           line("CONNECT", secret+".example:443", secret+".example"),
		"asterisk":                line("OPTIONS", "*", host, "X-Api-Key: "+secret),
		"preflight":               line("OPTIONS", path, host, "Origin: https://shop.example", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: "+secret),
		"another host":            line("GET", path, "other.example", "X-Api-Key: "+secret),
		"host":                    line("GET", path, secret+"."+host),
		"path":                    line("GET", path+"/"+secret, host),
		"path, percent-encoded":   line("GET", path+"/"+percent(secret), host),
		"query":                   asked("api_key=" + secret),
		"query, percent-encoded":  asked("api_key=" + percent(secret)),
		"query, twice so":         asked("api_key=" + strings.ReplaceAll(percent(secret), "%", "%25")),
		"query, base64":           asked("x=" + base64.StdEncoding.EncodeToString([]byte(secret))),
		"query, base64url":        asked("x=" + base64.RawURLEncoding.EncodeToString([]byte("k:"+secret))),
		"query, base64 of more":   asked("x=" + base64.RawURLEncoding.EncodeToString([]byte("ke:"+secret+":y"))),
		"query, hexadecimal":      asked("x=" + hex.EncodeToString([]byte(secret))),
		"query, HEXADECIMAL":      asked("x=" + strings.ToUpper(hex.EncodeToString([]byte(secret)))),
		"name of a query's value": asked(secret),
	}
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// Server is where requests are sent to: by TLS, with a server name, or else over plain
// HTTP.
type Server struct{ Address, Name string }

// wait is how long an answer is waited for: some of the requests have none.
const wait = time.Second

// Send sends [Requests] with each of the secrets to each of the servers, many at once.
func Send(servers []Server, host, path string, secrets ...string) error {
	type message struct {
		to      Server
		request string
	}
	messages := make(chan message)
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for m := range messages {
				if err := m.to.send(m.request); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for _, secret := range secrets {
		for _, request := range Requests(host, path, secret) {
			for _, to := range servers {
				messages <- message{to, request}
			}
		}
	}
	close(messages)
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// send sends a request and reads its answer, if there is one.
func (s Server) send(request string) error {
	conn, err := net.DialTimeout("tcp", s.Address, 20*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.Name != "" {
		conn = tls.Client(conn, &tls.Config{ServerName: s.Name, InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		io.Copy(io.Discard, answer.Body)
	}
	return nil
}

// Look returns the forms of secrets that are in text, with what stands before them.
func Look(secrets []string, text string) (found []string) {
	text = strings.ToLower(text)
	for _, secret := range secrets {
		for form, s := range forms(secret) {
			if i := strings.Index(text, s); i >= 0 {
				found = append(found, fmt.Sprintf("%s: …%s", form, text[max(0, i-200):i+len(s)]))
			}
		}
	}
	slices.Sort(found)
	return found
}

// LookInFiles is [Look] for every file under a folder.
func LookInFiles(secrets []string, dir string) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, f := range Look(secrets, string(text)) {
			found = append(found, path+": "+f)
		}
		return err
	})
	return found, err
}

// forms are what shows a secret, in lower case, by its name: two pieces of it, each
// long enough to be no accident, in each encoding. So what is left of a secret that was
// taken out by half is found, too.
func forms(secret string) map[string]string {
	out := make(map[string]string)
	for half, piece := range map[string]string{"one half": secret[len(secret)-32 : len(secret)-16], "the other half": secret[len(secret)-16:]} {
		out["plain, "+half] = piece
		out["percent-encoded, "+half] = percent(piece)
		out["percent-encoded twice, "+half] = strings.ReplaceAll(percent(piece), "%", "%25")
		out["hexadecimal, "+half] = hex.EncodeToString([]byte(piece))
		for before := range 3 {
			whole := base64.RawURLEncoding.EncodeToString([]byte("xx"[:before] + piece))
			out[fmt.Sprintf("base64 %d, %s", before, half)] = whole[(before*8+5)/6 : len(whole)-1] // without what depends on the neighbours
		}
	}
	for form, s := range out {
		out[form] = strings.ToLower(s)
	}
	return out
}
