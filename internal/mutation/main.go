// Command mutation removes the verifier's checks one by one and sees that a test
// notices: for the steps of a decision a row of a conformance table, for the
// rest a Go test. Nothing in the tree is changed: the compiler is given each
// file as it would be without the check.
//
//	go run ./internal/mutation [-run REGEXP] [-v]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// mutant is one check that is taken out.
type mutant struct {
	name     string
	file     string
	old, new string
	test     string // package whose tests must fail
}

// Where tests are.
const (
	tables = "./policies"
	inCore = "./core"
)

const (
	verifier   = "core/verifier.go"
	lookup     = "core/lookup.go"
	shape      = "core/shape.go"
	answer     = "core/answer.go"
	path       = "core/policy/path.go"
	route      = "core/policy/route.go"
	host       = "core/policy/host.go"
	strip      = "core/policy/strip.go"
	origin     = "core/policy/origin.go"
	request    = "core/credential/request.go"
	grammar    = "core/credential/credential.go"
	tokenFile  = "core/token/token.go"
	bundleFile = "core/bundle/bundle.go"
	mark       = "core/bundle/mark.go"
	note       = "core/bundle/note.go"
	trust      = "core/bundle/trust.go"
	node       = "core/bundle/node.go"
	record     = "core/bundle/record.go"
	state      = "caddymodule/disk/state.go"
	plugin     = "wasmfilter/plugin/plugin.go"
	inBundle   = "./core/bundle"
	inDisk     = "./caddymodule/disk"
	inPlugin   = "./wasmfilter/plugin"
)

var mutants = []mutant{
	// 1 transport
	{"plaintext", verifier, "if !c.TLS && !c.terminated() {", "if false {", tables},
	{"early data", verifier, "if c.EarlyData {", "if false {", tables},
	{"terminators listed", verifier, "if !c.MayTerminate(c.Peer) {", "if !c.MayTerminate(c.Peer) && false {", inCore},
	{"terminator says https", verifier, `return len(lines) == 1 && lines[0] == "https"`, "return len(lines) < 99", inCore},
	{"terminators of everyone", verifier, "if !p.IsValid() || p.Bits() == 0 {", "if false {", inCore},

	// the bundle's state
	{"no bundle", verifier, "if c.snapshot == nil {\n\t\treturn policy.NoBundle\n\t}", "", inCore},
	{"bundle's time", verifier, "c.now, c.config.ClockSkew, c.config.MaxAge)", "time.UnixMilli(c.snapshot.Manifest.Version), c.config.ClockSkew, c.config.MaxAge)", inCore},
	{"max_age", mark, "case maxAge > 0 && ms-signed > maxAge.Milliseconds():", "case false:", inCore},
	{"expiry", mark, "case ms >= m.Manifest.Expires:", "case false:", inCore},
	{"clock behind", mark, "case signed > ms+clockSkew.Milliseconds():", "case false:", inCore},
	{"rollback", mark, "case m.Manifest.Version < last.Manifest.Version:", "case false:", inCore},
	{"policy rollback", mark, "case m.Note.Version < last.Note.Version:", "case false:", inBundle},
	{"a publisher that is listed no more", mark, "case !slices.ContainsFunc(last.signedBy,", "case false && !slices.ContainsFunc(last.signedBy,", inBundle},
	{"a publisher that is still listed", mark, "case !slices.ContainsFunc(last.signedBy,", "case m.Note.Version > last.Note.Version || !slices.ContainsFunc(last.signedBy,", inBundle},
	{"fork of the policy note", mark, "case m.Note.Version == last.Note.Version && m.Note.hash != last.Note.hash:", "case false:", inBundle},
	{"floor", mark, "case m.Manifest.Version < f.Version:", "case false:", inCore},
	{"policy floor", mark, "case m.Note.Version < f.PolicyVersion:", "case false:", inCore},
	{"state's succession", state, "if err := m.CheckSuccession(last); err != nil {", "if false {", inDisk},
	{"state's trust", state, "if m, err = s.trust.Open(notes); err == nil {", "if m, err = s.trust.Open(notes); err == nil || true {", inDisk},
	{"lines of several signers", note, "if !bytes.Equal(text, own) {", "if false && !bytes.Equal(text, own) {", inBundle},
	{"fork", mark, "case m.Manifest.Version == last.Manifest.Version && m.Manifest != last.Manifest:", "case false:", inCore},
	{"bundle of the future", verifier, "errors.Is(err, bundle.ErrFuture) {\n\t\treturn err", "false {\n\t\treturn err", inCore},

	// 2 shape
	{"rewritten", verifier, "if c.Rewritten {", "if false {", inCore},
	{"unknown method", verifier, "c.method, known = policy.ParseMethod(c.Method); !known {", "c.method, known = policy.ParseMethod(c.Method); !known && false {", tables},
	{"path and query", verifier, "!ok || !canonicalQuery(c.Query) {", "false {", tables},
	{"query", verifier, "!ok || !canonicalQuery(c.Query) {", "!ok {", tables},
	{"fragment in the query", shape, " || q[i] == '#'", "", tables},
	{"host", verifier, "policy.CanonicalHost(c.Authority); !ok {\n\t\t\treturn policy.Malformed", "policy.CanonicalHost(c.Authority); !ok {\n\t\t\treturn policy.OK", tables},
	{"another Host line", verifier, "!ok || other != host {\n\t\t\t\treturn policy.Malformed", "!ok && other == host {\n\t\t\t\treturn policy.Malformed", tables},
	{"host not served", verifier, "c.snapshot.Policy.HostEnvironments(host); !served {", "c.snapshot.Policy.HostEnvironments(host); false {", tables},
	{"server name", verifier, "!ok || sni != policy.HostName(host) {", "!ok && sni == policy.HostName(host) {", tables},
	{"path's beginning", path, "path[0] != '/' || ", "", tables},
	{"double slash", path, "case s[0] == '/':\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"dot segment", path, "return len(s) > dots && s[dots] != '/'", "return dots > 0", tables},
	{"escape", path, " || !canonicalEscape(path[i:]) {", " {", tables},
	{"control and non-ASCII escape", path, "case c < 0x20, c >= 0x7f:\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"escape of a letter", path, "case c-'a' < 26, c-'A' < 26, c-'0' < 10:\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"escape with a meaning", path, "return strings.IndexByte(`-._~/\\%;#?`, c) < 0", "return true", tables},
	{"port", host, "n < 1 || n > 65535 || ", "", tables},

	// 3 route
	{"case of the path", route, "if fold && root.selectsAnother(&as, path, true) ||", "if fold && false ||", tables},
	{"trailing slash", route, "slash && root.selectsAnother(&as, &cut, false) ||", "", tables},
	{"case and slash at once", route, "fold && slash && root.selectsAnother(&as, &cut, true) {", "false {", tables},
	{"preflight's Origin", verifier, `len(c.Headers.Values("Origin")) == 0 || `, "", tables},
	{"preflight's method", verifier, ` || len(c.Headers.Values("Access-Control-Request-Method")) == 0 {`, " {", tables},
	{"preflight opted in", route, "if pt.route.CORS && pt.matches(path) {", "if pt.matches(path) {", tables},

	// 4 credential
	{"key in the path", verifier, "c.path.MayHoldKey() && g.WithinEncoded(c.Path) || ", "", tables},
	{"key in the query", verifier, ` || c.Query != "" && g.WithinEncoded(c.Query) {`, " {", tables},
	{"key in a cookie", verifier, "if g.WithinEncoded(line) {", "if g.WithinEncoded(line) && false {", tables},
	{"encoded key", request, "return g.Within(string(decoded))", "return false", tables},
	{"more than one", verifier, "case lines > 1:\n\t\treturn policy.Multiple", "case false:\n\t\treturn policy.Multiple", tables},
	{"none", verifier, "case lines == 0:\n\t\treturn policy.Missing", "case false:\n\t\treturn policy.Missing", tables},
	{"scheme", request, "!ascii.EqualFold(line[:n], s.Scheme)", "!ascii.EqualFold(s.Scheme, s.Scheme)", tables},
	{"space after the scheme", request, "line[n] != ' ' || ", "", "./core/credential"},
	{"names and length", verifier, "c.kind, c.env, ok = g.Split(value); !ok {", "c.kind, c.env, ok = g.Split(value); false {", inCore},
	{"body and checksum", lookup, "if !s.Policy.Grammar().Valid(c.key) {", "if false {", tables},
	{"checksum", grammar, "return g.imported || checksumFits(key)", "return true", tables},
	{"alphabet", grammar, "if !bodyChar[key[i]] {", "if false {", "./core/credential"},

	// 5 key
	{"unknown", lookup, "if e == nil {\n\t\treturn policy.Unknown\n\t}", "", tables},
	{"revoked", verifier, "case e.status == bundle.Revoked:", "case false:", tables},
	{"expired", verifier, "case now >= e.expires:", "case false:", tables},
	{"not yet valid", verifier, "case now < e.notBefore:", "case false:", tables},
	{"wrong environment", verifier, "case !c.environments.Has(c.env):", "case false:", tables},
	{"record against prefix", lookup, "if int(e.kind) != c.kind || int(e.env) != c.env {", "if false {", inCore},
	{"whole digest", lookup, "if ok && sameDigest(&e.digest, d) && ", "if ok && ", inCore},
	{"cached policy", lookup, " && e.policies == s.policies {", " {", inCore},
	{"cached tree", lookup, "if e.generation.Load() == s.generation {", "if true {", inCore},
	{"leaf of a cached record", lookup, "if leaf == e.leaf {", "if leaf == leaf {", inCore},
	{"panic", verifier, "if p := recover(); p != nil {", "if p := any(nil); p != nil {", inCore},

	// 6 customer token
	{"token missing", verifier, "if len(lines) == 0 {\n\t\treturn policy.TokenMissing\n\t}", "if len(lines) == 0 {\n\t\treturn policy.OK\n\t}", tables},
	{"token twice, or in another form", verifier, "if len(lines) > 1 || !ok {", "if !ok && false {", tables},
	{"token bound", verifier, "err != nil || !claims.Bound(", "err != nil || false && !claims.Bound(", tables},
	{"token expired", verifier, "if !c.now.Before(claims.Expires) {", "if false {", tables},
	{"token's size and alphabet", tokenFile, "len(raw) > MaxSize || !compact(raw)", "false", tables},
	{"token's size", tokenFile, "len(raw) > MaxSize || ", "", tables},
	{"token's header", tokenFile, "_, ok := parsed.Header[name]; ok {", "_, ok := parsed.Header[name]; false && ok {", tables},
	{"token's key", tokenFile, `_, given := parsed.Header["kid"]; given && id == "" {`, `_, given := parsed.Header["kid"]; false && given {`, tables},
	{"token's spare bits", tokenFile, "\t\tjwt.WithStrictDecoding(),\n", "", tables},
	{"issuer", tokenFile, "err != nil || issuer != t.Issuer {", "err != nil && issuer != t.Issuer {", tables},
	{"audience", tokenFile, "err != nil || !slices.Contains(audience, t.Audience) {", "err != nil && !slices.Contains(audience, t.Audience) {", tables},
	{"expiry missing", tokenFile, "if err != nil || expires == nil {\n\t\treturn nil, ErrInvalid\n\t}", "if expires == nil {\n\t\texpires = jwt.NewNumericDate(now.Add(time.Hour))\n\t}", tables},
	{"token's not-before", tokenFile, " || notBefore != nil && now.Before(notBefore.Time) {", " && notBefore != nil {", tables},
	{"subject", tokenFile, `err != nil || subject == "" || policy.CheckIdentityValue(subject) != nil {`, "false {", tables},
	{"subject for a header", tokenFile, ` || policy.CheckIdentityValue(subject) != nil {`, " {", tables},

	// 7 permission
	{"kind without a route", verifier, "case route == nil && !p.UnroutedKinds.Has(c.kind):", "case false:", tables},
	{"no route", verifier, "case route == nil:\n\t\treturn policy.NoRoute", "case route == nil:\n\t\treturn policy.OK", tables},
	{"kind", verifier, "case !route.Kinds.Has(c.kind):", "case false:", tables},
	{"address", verifier, "case c.entry.restricted && !c.addressAllowed(c.entry.record.Prefixes):", "case false:", tables},
	{"mapped address", verifier, "ip := c.ClientIP().Unmap() // R41", "ip := c.ClientIP()", tables},
	{"referrer", verifier, "case c.entry.restricted && !c.originAllowed():", "case false:", tables},
	{"referrer twice", origin, "len(origin) > 1 || len(referer) > 1 || ", "len(origin) > 9 || ", tables},
	{"referrers joined", origin, "len(referer) == 1 && joined(referer[0])", "false", tables},
	{"keys joined", request, "if lines += s.joined(line); lines > 1 {", "if lines++; lines > 1 {", tables},
	{"referrer's scheme", origin, "from.scheme != o.scheme || ", "", tables},
	{"referrer's port", origin, " || from.port != o.port {", " {", tables},
	{"endpoint", verifier, "case c.entry.restricted && !c.endpointAllowed():", "case false:", tables},
	{"endpoint's method", route, "return e.methods.Has(m) && e.pattern.matches(path)", "return e.pattern.matches(path)", tables},
	{"tenant", verifier, `case route.TenantParam != "" && (key.Tenant == "" || c.match.Param(route.TenantParam) != key.Tenant):`, `case key.Tenant == "no one's":`, tables},
	{"scope", verifier, "case !c.scopeAllowed(route, p.Kinds[c.kind].Scoped):", "case false:", tables},
	{"unrestricted", verifier, "if route.Unrestricted && c.entry.restricted {", "if false {", tables},
	{"own key", verifier, "return c.match.Param(demand.OwnKey) == c.entry.key.ID", "return true", tables},
	{"a demand that nothing meets", verifier, "return len(demand.Scopes) > 0", "return true", tables},

	// what goes on, and what is answered
	{"identity headers", strip, "if hasFoldPrefix(name, identityPrefix) {\n\t\treturn true\n\t}", "", "./core/policy"},
	{"aliases", strip, "case c == '_' || c == '.':", "case false:", tables},
	{"override headers", strip, "\tfor _, n := range overrides {\n\t\ts.add(n, stripAlways)\n\t}\n", "", tables},
	{"source headers", strip, "\tfor _, src := range p.Sources {\n\t\ts.add(src.Header, stripAlways)\n\t}\n", "", tables},
	{"customer token elsewhere", strip, "return !keepToken || ", "return ", tables},
	{"Connection", strip, "if p.Strips(strings.Trim(option, \" \\t\"), false) {", "if false {", "./core/policy"},
	{"CORS of a denial", answer, "if route != nil && route.CORS && reason >= policy.InURL {", "if false {", tables},
	{"gRPC", answer, "if r != nil && isGRPC(r) {", "if false {", tables},
	{"no gRPC over plain HTTP", answer, "if reason == policy.Plaintext {", "if false {", tables},
	{"not to be cached", answer, "Header{\"Cache-Control\", \"no-store\"},\n", "", tables},

	// the bundle
	{"compiled policy's hash", bundleFile, "if HashOf(compiled) != mark.Note.Policy {", "if false {", inBundle},
	{"threshold", trust, "if len(signed) < t.threshold {", "if false {", inBundle},
	{"audience of the bundle", trust, "if n.Audience != t.audience {", "if false {", inBundle},
	{"name of the bundle", trust, `if t.name != "" && n.Name != t.name {`, "if false {", inBundle},
	{"manifest's policy note", trust, "if manifest.PolicyNote != m.Note.hash {", "if false {", inBundle},
	{"one key under two names", trust, "if other.key == v.key {", "if false {", inBundle},
	{"low order", trust, "case new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1:", "case false:", inBundle},
	{"canonical key", trust, "case !bytes.Equal(point.Bytes(), v.key[:]):", "case !bytes.Equal(point.Bytes(), point.Bytes()):", inBundle},
	{"note's size", trust, "if len(msg) > MaxNote {", "if false {", inBundle},
	{"life", note, "life <= 0 || life > MaxLife.Milliseconds()", "false", inBundle},
	{"node's hash", node, "if HashOf(b) != hash {", "if false {", inBundle},
	{"leaf's place", node, "if !at.covers(&d) || ", "if ", inBundle},
	{"leaf's count", node, "if r.Err() == nil && count != n.count {", "if false {", inBundle},
	{"branch's place", node, "if at.count <= LeafRecords || at.depth%branchBits != 0 || ", "if ", inBundle},
	{"branch's count", node, "if total != n.count {", "if false {", inBundle},
	{"kinds and environments", node, `return errors.New("its kind or environment may not be published under the policy note")`, "return nil", inBundle},
	{"critical field", node, "if body.critical != 0 {", "if false {", inBundle},
	{"record's strings counted", node, "len(rec.Digest) + len(raw) + body.referred", "len(rec.Digest) + len(raw)", inBundle},
	{"references ascend", record, "if r.Err() == nil && i <= last {", "if r.Err() == nil && i <= last && false {", inBundle},
	{"reference is there", record, "if i >= len(b.strings) {", "if i > len(b.strings) {", inBundle},
	{"strings are used", node, "if slices.Contains(body.used, false) {", "if false {", inBundle},
	{"parts tile", node, "err != nil || len(rest) > 0 {", "err != nil || len(rest) > 99 {", inBundle},
	{"empty part's hash", node, "case (p.count == 0) != (p.hash == Hash{}):", "case false:", inBundle},
	{"part is divided", node, "case p.count > LeafRecords && (int(p.depth) != branchBits || n.depth+branchBits >= digestBits):", "case false:", inBundle},
	{"needless division", node, "if err == nil && left+right <= LeafRecords {", "if false {", inBundle},
	{"node's format", node, "if b[1] != nodeFormat {", "if false {", inBundle},
	{"pack's size", "core/bundle/pack.go", "tail != uint64(size)-p.index {", "tail == 1 {", inCore},
	{"digest of nothing", record, "case r.Digest == zero:", "case r.Digest == zero && false:", inBundle},
	{"record's size", record, "if n := r.size(); n > MaxRecord {", "if n := 0; n > MaxRecord {", inBundle},

	// the filter
	{"filter: TLS", plugin, `if len(p.host.Property("connection", "tls_version")) == 0 {`, "if false {", inPlugin},
	{"filter: plain HTTP reads nothing", plugin, `if len(p.host.Property("connection", "tls_version")) == 0 {`, `if p.host.RequestHeaders(); len(p.host.Property("connection", "tls_version")) == 0 {`, inPlugin},
	{"filter: trailer", plugin, "return p.filterTrailers(&b.decision)", "return Continue", inPlugin},
	{"filter: trailer of a request that waits", plugin, "b.trailers = true", "b.trailers = false", inPlugin},
	{"filter: trailer of a request that waited", plugin, "if b.trailers && action == Continue {", "if false {", inPlugin},
	{"filter: trailer of nobody's request", plugin, "return p.unavailable() // nothing was said to follow", "return Continue", inPlugin},
	{"filter: trailer for another host", plugin, "case b.passed:", "case false:", inPlugin},
	{"filter: line of several goes", plugin, "if to, ok := becomes(name, l.Value); l.Name == name && ok {", "if to := l.Value; l.Name == name {", inPlugin},
	{"filter: lines of several stay", plugin, "if to, ok := becomes(name, l.Value); l.Name == name && ok {", "if to, ok := becomes(name, l.Value); ok && false {", inPlugin},
	{"filter: WebSocket by HTTP/1.1 alone", plugin, `r.HTTP11 = string(p.host.Property("request", "protocol")) == "HTTP/1.1"`, "r.HTTP11 = true", inPlugin},
	{"filter: body of a WebSocket", "wasmfilter/plugin/headers.go", `r.Body = r.Body || l.Value != "0"`, "", inPlugin},
	{"filter: who ends TLS", "wasmfilter/plugin/config.go", "if c.TLSTerminators != nil {", "if false {", inPlugin},
}

func main() {
	only := flag.String("run", "", "only mutants whose name matches this regular expression")
	verbose := flag.Bool("v", false, "print every mutant")
	flag.Parse()
	filter, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	noticed, failed := 0, 0
	for _, m := range mutants {
		if !filter.MatchString(m.name) {
			continue
		}
		if err := m.try(); err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", m.name, err)
			continue
		}
		noticed++
		if *verbose {
			fmt.Printf("ok   %s\n", m.name)
		}
	}
	fmt.Printf("mutation: removing a check was noticed %d times, and not %d times\n", noticed, failed)
	fmt.Printf("%d passed, %d failed\n", noticed, failed)
	if failed > 0 || noticed == 0 {
		os.Exit(1)
	}
}

// try runs the tests without the check. They must fail, and not for want of
// compiling.
func (m *mutant) try() error {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return fmt.Errorf("%s has the check %d times: the list is out of date", m.file, n)
	}
	dir, err := os.MkdirTemp("", "mutation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	changed := filepath.Join(dir, "mutant.go")
	text := strings.Replace(string(source), m.old, m.new, 1)
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}
	out, err := exec.Command("go", "test", "-count=1", "-vet=off", "-failfast", "-timeout", "120s", "-overlay", list, m.test).CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("no test in %s notices that the check is gone", m.test)
	case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic: "):
		return fmt.Errorf("the tests do not run:\n%s", out[:min(len(out), 1000)])
	}
	return nil
}
