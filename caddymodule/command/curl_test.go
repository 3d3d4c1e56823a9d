package command

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/policy"
)

const canary = "sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7"

func (c *call) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.method, map[bool]string{true: "https", false: "http"}[c.tls])
	fmt.Fprintf(&b, " %s %s", c.authority, c.path)
	if c.query != "" {
		b.WriteString("?" + c.query)
	}
	if c.sni != strings.Split(c.authority, ":")[0] {
		fmt.Fprintf(&b, " sni=%s", c.sni)
	}
	if c.body {
		b.WriteString(" body")
	}
	if c.http11 {
		b.WriteString(" 1.1")
	}
	for _, l := range c.lines {
		if l != (core.Header{Name: "User-Agent", Value: "curl"}) && l != (core.Header{Name: "Accept", Value: "*/*"}) {
			fmt.Fprintf(&b, " [%s: %s]", l.Name, l.Value)
		}
	}
	return b.String()
}

// What a command line of curl sends.
func TestCurl(t *testing.T) {
	for line, want := range map[string]string{
		`curl https://a.test`:              "GET https a.test /",
		`curl a.test/x`:                    "GET http a.test /x sni= 1.1",
		`/usr/bin/curl HTTPS://A.test?b=c`: "GET https A.test /?b=c",
		`curl https://a.test:443/x#y`:      "GET https a.test /x",
		`curl https://a.test:8443/x`:       "GET https a.test:8443 /x",
		`curl https://[::1]:8443/`:         "GET https [::1]:8443 / sni=",
		`curl https://192.0.2.1/`:          "GET https 192.0.2.1 / sni=",
		`curl --url https://a.test -X PUT`: "PUT https a.test /",
		`curl -XDELETE https://a.test`:     "DELETE https a.test /",
		`curl -I https://a.test`:           "HEAD https a.test /",
		`curl -sSkvi --cacert x --resolve a:1:2 -o f --http1.1 https://a.test`:     "GET https a.test / 1.1",
		`curl -d a=b --data-urlencode 'c=d e' https://a.test`:                      "POST https a.test / body [Content-Type: application/x-www-form-urlencoded]",
		`curl -d @file -H 'Content-Type: text/plain' https://a.test`:               "POST https a.test / body [Content-Type: text/plain]",
		`curl -G -d a=b --data-urlencode 'c=d e' https://a.test/x?y`:               "GET https a.test /x?y&a=b&c=d%20e",
		`curl --json '{}' https://a.test`:                                          "POST https a.test / body [Accept: application/json] [Content-Type: application/json]",
		`curl -F a=b https://a.test`:                                               "POST https a.test / body [Content-Type: multipart/form-data]",
		`curl -T file https://a.test`:                                              "PUT https a.test / body",
		`curl -H 'X-Api-Key:  k' -H 'Accept:' -H 'X-Empty;' https://a.test`:        "GET https a.test / [X-Api-Key: k] [X-Empty: ]",
		`curl -H 'Host: b.test' https://a.test`:                                    "GET https b.test / sni=a.test",
		`curl -A me -e 'https://s.test/;auto' -b a=b -b c=d https://a.test`:        "GET https a.test / [Cookie: a=b; c=d] [User-Agent: me] [Referer: https://s.test/]",
		`curl -u me:secret https://a.test`:                                         "GET https a.test / [Authorization: Basic bWU6c2VjcmV0]",
		`curl https://me:s%20t@a.test`:                                             "GET https a.test / [Authorization: Basic bWU6cyB0]",
		`curl -u me:secret -H 'Authorization: Bearer k' https://a.test`:            "GET https a.test / [Authorization: Bearer k]",
		`curl --oauth2-bearer k https://a.test`:                                    "GET https a.test / [Authorization: Bearer k]",
		`curl https://a.test/a/../b/./c/..`:                                        "GET https a.test /b/",
		`curl --path-as-is https://a.test/a/../b`:                                  "GET https a.test /a/../b",
		`curl -g 'https://a.test/{x}'`:                                             "GET https a.test /{x}",
		"curl \"https://a.test/x\" \\\n  -H \"X-A: \\\"b\\\"\" \\\r\n -H X-B:\\ c": `GET https a.test /x [X-A: "b"] [X-B: c]`,
	} {
		words, err := splitWords(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		c, err := parseCurl(words)
		if err != nil || c.String() != want {
			t.Errorf("%s\n got %v, %v\nwant %s", line, c, err, want)
		}
	}
}

// What cannot be told from a command line is refused, in words that hold no key (R74).
func TestCurlRefuses(t *testing.T) {
	for line, want := range map[string]string{
		``:                                  "begins with curl",
		`wget https://a.test/KEY`:           "begins with curl",
		`curl`:                              "no URL",
		`curl -H 'X-Api-Key: KEY'`:          "no URL",
		`curl --proxy KEY https://a.test`:   "option --proxy is not known",
		`curl -x KEY https://a.test`:        "option -x is not known",
		`curl -KEY https://a.test`:          "option (not shown) is not known",
		`curl --KEY https://a.test`:         "option (not shown) is not known",
		`curl https://a.test -H`:            "-H needs a value",
		`curl -H KEY https://a.test`:        "write a header line",
		`curl -H 'KEY x: y' https://a.test`: "write a header line",
		`curl -H @KEY https://a.test`:       "reads lines from a file",
		`curl -b KEY https://a.test`:        "reads cookies from a file",
		`curl -G -d @KEY https://a.test`:    "reads the query from a file",
		`curl https://a.test/KEY https://b`: "two URLs",
		`curl ''`:                           "the URL is empty",
		`curl 'https://a.test/x KEY'`:       "a space",
		`curl ftp://a.test/KEY`:             "another scheme",
		`curl https:///KEY`:                 "no host",
		`curl https://KEY%zz@a.test`:        "not encoded",
		`curl 'https://a.test/{KEY}'`:       "brackets",
		`curl "https://a.test/$KEY"`:        "a shell would expand",
		`curl https://a.test/KEY | jq`:      "is the shell's",
		`curl https://a.test/KEY&b=c`:       "is the shell's",
		`curl 'https://a.test/KEY`:          "not closed",
	} {
		line = strings.ReplaceAll(line, "KEY", canary)
		words, err := splitWords(line)
		if err == nil {
			_, err = parseCurl(words)
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), canary[8:]) {
			t.Errorf("%s: %v, and not %q", line, err, want)
		}
	}
}

// Each reason has a mend, which names commands and flags that there are.
func TestMends(t *testing.T) {
	root := &cobra.Command{Use: "keystile"}
	root.AddCommand(initCommand(), keysCommand(), bundleCommand(), policyCommand())
	command := regexp.MustCompile("`caddy keystile ([^`]+)`")
	for r := policy.OK + 1; r < policy.NumReasons; r++ {
		if len(mends[r]) < 20 || !strings.HasSuffix(mends[r], ".") {
			t.Errorf("%s: %q is no mend", r, mends[r])
		}
		for _, m := range command.FindAllStringSubmatch(mends[r], -1) {
			words := strings.Fields(m[1])
			found, _, err := root.Find(words)
			if err != nil || found.HasSubCommands() {
				t.Errorf("%s: there is no command %q", r, m[1])
				continue
			}
			for _, w := range words {
				if flag, ok := strings.CutPrefix(w, "--"); ok && found.Flags().Lookup(flag) == nil {
					t.Errorf("%s: %q has no flag %s", r, m[1], w)
				}
			}
		}
	}
	if mends[policy.OK] != "" {
		t.Error("what is allowed has a mend")
	}
}

// FuzzCurl: no text makes the command panic, and what is read can be asked.
func FuzzCurl(f *testing.F) {
	for _, s := range []string{`curl -H 'A: b' https://a.test/../x`, `curl -G -d a -u b "https://[::1]/"`, "curl \\\n -X", `curl -b a=b;c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitWords(s)
		if err != nil {
			return
		}
		if c, err := parseCurl(words); err == nil && (c.method == "" || c.path == "" || c.path[0] != '/') {
			t.Errorf("%q: %v", s, c)
		}
	})
}
