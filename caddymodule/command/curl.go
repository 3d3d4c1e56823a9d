package command

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/keystile/keystile/core"
)

// call is a request as a command line gives it. No error about one quotes what could be
// an API key.
type call struct {
	tls                            bool
	method, authority, path, query string
	sni                            string
	lines                          core.Lines
	http11, body                   bool
}

// curl is a curl command line on its way to a call.
type curl struct {
	method, url    string
	head, get, put bool
	lines          core.Lines // as -H gives them
	without        []string   // names that -H takes away
	usual          core.Lines // what other options set, unless -H does
	user           string
	cookies, data  []string
	form, json     bool
	fromFile       bool // some of data
	http11, asIs   bool
	literal        bool // brackets in the URL mean themselves
}

// option is an option of curl's. One without do changes nothing that is decided by.
type option struct {
	short byte
	long  string
	value bool
	do    func(c *curl, value string) error
}

var curlOptions = []option{
	{'X', "request", true, func(c *curl, v string) error { c.method = v; return nil }},
	{'H', "header", true, (*curl).header},
	{'A', "user-agent", true, func(c *curl, v string) error { return c.set("User-Agent", v) }},
	{'e', "referer", true, func(c *curl, v string) error { return c.set("Referer", strings.TrimSuffix(v, ";auto")) }},
	{'b', "cookie", true, func(c *curl, v string) error {
		if !strings.Contains(v, "=") {
			return errors.New("curl reads cookies from a file there: write them as name=value")
		}
		c.cookies = append(c.cookies, v)
		return nil
	}},
	{'u', "user", true, func(c *curl, v string) error { c.user = v; return nil }},
	{0, "oauth2-bearer", true, func(c *curl, v string) error { return c.set("Authorization", "Bearer "+v) }},
	{'d', "data", true, (*curl).addData},
	{0, "data-ascii", true, (*curl).addData},
	{0, "data-binary", true, (*curl).addData},
	{0, "data-raw", true, func(c *curl, v string) error { c.data = append(c.data, v); return nil }},
	{0, "data-urlencode", true, (*curl).addEncoded},
	{0, "json", true, func(c *curl, v string) error { c.json = true; return c.addData(v) }},
	{'F', "form", true, func(c *curl, _ string) error { c.form = true; return nil }},
	{'T', "upload-file", true, func(c *curl, _ string) error { c.put = true; return nil }},
	{'I', "head", false, func(c *curl, _ string) error { c.head = true; return nil }},
	{'G', "get", false, func(c *curl, _ string) error { c.get = true; return nil }},
	{0, "url", true, (*curl).setURL},
	{0, "compressed", false, func(c *curl, _ string) error { return c.set("Accept-Encoding", "deflate, gzip") }},
	{0, "http1.1", false, func(c *curl, _ string) error { c.http11 = true; return nil }},
	{0, "path-as-is", false, func(c *curl, _ string) error { c.asIs = true; return nil }},
	{'g', "globoff", false, func(c *curl, _ string) error { c.literal = true; return nil }},

	{'k', "insecure", false, nil}, {'s', "silent", false, nil}, {'S', "show-error", false, nil}, {'i', "include", false, nil},
	{0, "show-headers", false, nil}, {'v', "verbose", false, nil}, {'f', "fail", false, nil}, {0, "fail-with-body", false, nil},
	{'L', "location", false, nil}, {'N', "no-buffer", false, nil}, {'#', "progress-bar", false, nil}, {'O', "remote-name", false, nil},
	{'J', "remote-header-name", false, nil}, {'4', "ipv4", false, nil}, {'6', "ipv6", false, nil}, {0, "http2", false, nil}, {0, "http3", false, nil},
	{0, "http3-only", false, nil}, {0, "tlsv1.2", false, nil}, {0, "tlsv1.3", false, nil}, {0, "no-progress-meter", false, nil},
	{0, "cacert", true, nil}, {0, "capath", true, nil}, {'E', "cert", true, nil}, {0, "key", true, nil}, {0, "resolve", true, nil},
	{0, "connect-to", true, nil}, {'o', "output", true, nil}, {'D', "dump-header", true, nil}, {'w', "write-out", true, nil},
	{'c', "cookie-jar", true, nil}, {'m', "max-time", true, nil}, {0, "connect-timeout", true, nil}, {0, "retry", true, nil}, {0, "retry-delay", true, nil},
}

// parseCurl reads a curl command line, in words.
func parseCurl(words []string) (*call, error) {
	if len(words) == 0 || words[0] != "curl" && !strings.HasSuffix(words[0], "/curl") {
		return nil, errors.New("a command line of curl begins with curl")
	}
	c := new(curl)
	for rest := words[1:]; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		var err error
		switch {
		case word == "--":
		case strings.HasPrefix(word, "--"):
			rest, err = c.long(word[2:], rest)
		case len(word) > 1 && word[0] == '-':
			rest, err = c.short(word[1:], rest)
		default:
			err = c.setURL(word)
		}
		if err != nil {
			return nil, err
		}
	}
	return c.call()
}

// long reads one long option, and its value from the words after it.
func (c *curl) long(name string, rest []string) ([]string, error) {
	i := slices.IndexFunc(curlOptions, func(o option) bool { return o.long == name })
	if i < 0 {
		return nil, fmt.Errorf("curl's option %s is not known here: leave it out if it does not change the request, or give --method, --url and --header", optionName("--"+name))
	}
	return curlOptions[i].apply(c, "--"+name, "", rest)
}

// short reads a word of short options, of which the last may have its value in it.
func (c *curl) short(word string, rest []string) (_ []string, err error) {
	for at := range len(word) {
		i := slices.IndexFunc(curlOptions, func(o option) bool { return o.short == word[at] })
		if i < 0 || word[at] == 0 {
			return nil, fmt.Errorf("curl's option %s is not known here: leave it out if it does not change the request, or give --method, --url and --header", optionName("-"+word[at:at+1]))
		}
		o := &curlOptions[i]
		if o.value {
			return o.apply(c, "-"+word[at:at+1], word[at+1:], rest)
		}
		if _, err = o.apply(c, "-"+word[at:at+1], "", nil); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// optionName is an option's name, if it can be one: API keys have other characters.
func optionName(s string) string {
	if len(s) > 32 || strings.Trim(s, "-.#:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return "(not shown)"
	}
	return s
}

// apply applies o, whose value is given, or else the first word of rest.
func (o *option) apply(c *curl, name, given string, rest []string) ([]string, error) {
	if o.value && given == "" {
		if len(rest) == 0 {
			return nil, fmt.Errorf("curl's option %s needs a value", name)
		}
		given, rest = rest[0], rest[1:]
	}
	if o.do == nil {
		return rest, nil
	}
	if err := o.do(c, given); err != nil {
		return nil, fmt.Errorf("curl's option %s: %w", name, err)
	}
	return rest, nil
}

func (c *curl) setURL(s string) error {
	if c.url != "" {
		return errors.New("there are two URLs: give one request at a time")
	}
	if s == "" {
		return errors.New("the URL is empty")
	}
	c.url = s
	return nil
}

func (c *curl) header(s string) error {
	if strings.HasPrefix(s, "@") {
		return errors.New("curl reads lines from a file there: give them one by one")
	}
	if name, ok := strings.CutSuffix(s, ";"); ok && !strings.Contains(s, ":") {
		s = name + ":" // curl's way to write a line that is empty
	} else if name, value, ok := strings.Cut(s, ":"); ok && strings.TrimSpace(value) == "" {
		c.without = append(c.without, name)
		return nil
	}
	line, err := parseLine(s)
	c.lines = append(c.lines, line)
	return err
}

// set sets a line that -H can replace or take away.
func (c *curl) set(name, value string) error {
	c.usual = slices.DeleteFunc(c.usual, func(l core.Header) bool { return l.Name == name })
	line, err := parseLine(name + ": " + value)
	if value != "" {
		c.usual = append(c.usual, line)
	}
	return err
}

func (c *curl) addData(s string) error {
	c.fromFile = c.fromFile || strings.HasPrefix(s, "@")
	c.data = append(c.data, s)
	return nil
}

func (c *curl) addEncoded(s string) error {
	i := strings.IndexAny(s, "=@")
	if i >= 0 && s[i] == '@' {
		return c.addData("@")
	}
	name, value := "", s
	if i >= 0 {
		name, value = s[:i], s[i+1:]
	}
	encoded := strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	if name != "" {
		encoded = name + "=" + encoded
	}
	c.data = append(c.data, encoded)
	return nil
}

// call is the request that curl would send.
func (c *curl) call() (*call, error) {
	if c.url == "" {
		return nil, errors.New("the command line of curl has no URL")
	}
	sends := c.form || c.json || len(c.data) > 0
	method := "GET"
	switch {
	case c.method != "":
		method = c.method
	case c.head:
		method = "HEAD"
	case c.put:
		method = "PUT"
	case sends && !c.get:
		method = "POST"
	}
	target := c.url
	if c.get && len(c.data) > 0 {
		if c.fromFile {
			return nil, errors.New("curl reads the query from a file: write it")
		}
		target = withQuery(target, strings.Join(c.data, "&"))
	}
	if !c.literal && strings.ContainsAny(afterAuthority(target), "[]{}") {
		return nil, errors.New("the URL has brackets, which curl expands: add curl's option -g to send them as they are")
	}
	out, user, err := parseURL(target, !c.asIs)
	if err != nil {
		return nil, err
	}
	out.method, out.http11 = method, c.http11 || !out.tls
	out.body = (sends && !c.get) || c.put
	return out, c.addLines(out, user)
}

func withQuery(target, query string) string {
	target, _, _ = strings.Cut(target, "#")
	if strings.Contains(target, "?") {
		return target + "&" + query
	}
	return target + "?" + query
}

// afterAuthority is what follows the host in a URL: an IPv6 address has brackets.
func afterAuthority(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok {
		target = rest
	}
	i := strings.IndexAny(target, "/?#")
	if i < 0 {
		return ""
	}
	return target[i:]
}

// addLines puts the lines together, as curl does. user is that of the URL.
func (c *curl) addLines(out *call, user string) error {
	usual := core.Lines{{Name: "User-Agent", Value: "curl"}, {Name: "Accept", Value: "*/*"}}
	switch {
	case c.json:
		usual = core.Lines{usual[0], {Name: "Accept", Value: "application/json"}, {Name: "Content-Type", Value: "application/json"}}
	case c.form:
		usual = append(usual, core.Header{Name: "Content-Type", Value: "multipart/form-data"})
	case out.body && !c.put:
		usual = append(usual, core.Header{Name: "Content-Type", Value: "application/x-www-form-urlencoded"})
	}
	if c.user != "" {
		user = c.user
	}
	if user != "" {
		if !strings.Contains(user, ":") {
			user += ":" // curl asks for the password
		}
		usual = append(usual, core.Header{Name: "Authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte(user))})
	}
	if len(c.cookies) > 0 {
		line, err := parseLine("Cookie: " + strings.Join(c.cookies, "; "))
		if err != nil {
			return err
		}
		usual = append(usual, line)
	}
	for _, l := range usual {
		if !has(c.usual, l.Name) {
			out.lines = append(out.lines, l)
		}
	}
	out.lines = append(out.lines, c.usual...)
	out.lines = slices.DeleteFunc(out.lines, func(l core.Header) bool {
		return has(c.lines, l.Name) || slices.ContainsFunc(c.without, func(name string) bool { return l.Is(name) })
	})
	out.addLines(c.lines)
	return nil
}

func has(lines core.Lines, name string) bool {
	return slices.ContainsFunc(lines, func(l core.Header) bool { return l.Is(name) })
}

// addLines adds lines. One of Host is the request's host: the server name of TLS stays
// that of the URL.
func (c *call) addLines(lines core.Lines) {
	for _, l := range lines {
		if l.Is("Host") {
			c.authority = l.Value
			continue
		}
		c.lines = append(c.lines, l)
	}
}

// parseLine reads "Name: value".
func parseLine(s string) (line core.Header, err error) {
	name, value, ok := strings.Cut(s, ":")
	if !ok || name == "" || strings.Trim(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return line, errors.New("write a header line as 'Name: value'")
	}
	value = strings.Trim(value, " \t")
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return line, errors.New("a header line has a control character, which no server takes")
	}
	return core.Header{Name: name, Value: value}, nil
}

// parseURL takes a URL apart without decoding anything. Without a scheme it is http://,
// as for curl. user is what stands before the host.
func parseURL(s string, dots bool) (c *call, user string, err error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, "", errors.New("the URL has a space or a control character: quote it, and encode it as %20")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "http", s
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return nil, "", errors.New("the URL begins with another scheme: write https://host/path")
	}
	c = &call{tls: scheme == "https"}
	rest, _, _ = strings.Cut(rest, "#")
	c.authority, c.path = rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		c.authority, c.path = rest[:i], rest[i:]
	}
	c.path, c.query, _ = strings.Cut(c.path, "?")
	if c.path == "" {
		c.path = "/"
	}
	if dots {
		c.path = withoutDots(c.path)
	}
	if i := strings.LastIndexByte(c.authority, '@'); i >= 0 {
		if user, err = url.PathUnescape(c.authority[:i]); err != nil {
			return nil, "", errors.New("the URL's user and password are not encoded rightly")
		}
		c.authority = c.authority[i+1:]
	}
	if c.authority == "" {
		return nil, "", errors.New("the URL has no host: write https://host/path")
	}
	c.authority = strings.TrimSuffix(c.authority, map[bool]string{true: ":443", false: ":80"}[c.tls])
	if c.tls {
		c.sni = serverName(c.authority)
	}
	return c, user, nil
}

// serverName is what a client sends as the server name of TLS: no address.
func serverName(authority string) string {
	if strings.HasPrefix(authority, "[") {
		return ""
	}
	name, _, _ := strings.Cut(authority, ":")
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return strings.TrimSuffix(name, ".")
}

// withoutDots takes dot segments out of a path, as clients do before they send it (RFC
// 3986 section 5.2.4).
func withoutDots(path string) string {
	var out []string
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// splitWords splits a command line into words, as a shell does, with quotes, escapes and
// lines that go on. What a shell would expand is refused.
func splitWords(s string) (words []string, err error) {
	var word strings.Builder
	open, in := byte(0), false // the quote that is open; whether a word has begun
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case open == '\'' && c != '\'', open == '"' && c != '"' && c != '\\' && c != '$' && c != '`':
			word.WriteByte(c)
		case open != 0 && c == open:
			open = 0
		case c == '\\' && i+1 < len(s):
			i++
			if s[i] == '\r' && i+1 < len(s) && s[i+1] == '\n' {
				i++
			}
			if s[i] == '\n' {
				continue // the line goes on
			}
			if open == '"' && strings.IndexByte("\"\\$`", s[i]) < 0 {
				word.WriteByte('\\')
			}
			word.WriteByte(s[i])
			in = true
		case c == '$' || c == '`':
			return nil, fmt.Errorf("a shell would expand %q, which is not done here: write what it stands for, or put it into single quotes", c)
		case c == '\'' || c == '"':
			open, in = c, true
		case strings.IndexByte("|&;<>()", c) >= 0:
			return nil, fmt.Errorf("%q is the shell's: give the command line of curl alone, and quote its URL", c)
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if open != 0 {
		return nil, fmt.Errorf("a quote (%q) is not closed", open)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
