package main

// Where tests are.
const (
	tables   = "./policies"
	inTable  = "./policies/table"
	inCore   = "./core"
	inPolicy = "./core/policy"
)

const (
	verifier   = "core/verifier.go"
	check      = "core/check.go"
	pattern    = "core/policy/pattern.go"
	scope      = "core/policy/scope.go"
	lookup     = "core/lookup.go"
	explain    = "core/explain.go"
	query      = "core/shape/query.go"
	answer     = "core/answer.go"
	path       = "core/shape/path.go"
	route      = "core/policy/route.go"
	host       = "core/shape/host.go"
	field      = "core/policy/field.go"
	forward    = "core/forward.go"
	fold       = "core/internal/ascii/ascii.go"
	origin     = "core/policy/referrer.go"
	request    = "core/credential/request.go"
	grammar    = "core/credential/credential.go"
	tokenFile  = "core/internal/customer/customer.go"
	bundleFile = "core/bundle/bundle.go"
	mark       = "core/bundle/mark.go"
	note       = "core/bundle/note.go"
	trust      = "core/bundle/trust.go"
	node       = "core/bundle/node.go"
	record     = "core/bundle/record.go"
	state      = "internal/disk/state.go"
	inBundle   = "./core/bundle"
	inDisk     = "./internal/disk"

	redaction   = "caddymodule/redaction.go"
	redactCaddy = "caddymodule/redaction_caddy.go"
	redactFind  = "core/redact/find.go"
	inRedact    = "./core/redact"

	directory   = "internal/disk/dir.go"
	private     = "internal/disk/private.go"
	inForce     = "internal/control/witness.go"
	comparing   = "internal/control/compare.go"
	renewing    = "internal/control/renew.go"
	publisher   = "internal/control/publisher.go"
	lock        = "internal/control/lock.go"
	signing     = "internal/control/signing.go"
	keyring     = "internal/control/keyring.go"
	growing     = "internal/control/tree.go"
	sqlite      = "internal/control/store/sqlstore/sqlite.go"
	storeTx     = "internal/control/store/sqlstore/tx.go"
	migrating   = "internal/control/store/sqlstore/migrate.go"
	publication = "core/bundle/publish.go"
	updating    = "core/bundle/update.go"
	inStore     = "./internal/control/store/sqlstore"
	home        = "internal/control/home.go"
	inControl   = "./internal/control"
	inCommand   = "./caddymodule/command"

	usage     = "caddymodule/command/arguments.go"
	secrets   = "caddymodule/command/secrets.go"
	hostFlags = "caddymodule/command/hosts.go"
	mistaken  = "internal/control/mistaken.go"
	newKey    = "internal/control/newkey.go"
	signers   = "internal/disk/signers.go"
	caddyfile = "caddymodule/caddyfile.go"
	compiling = "core/policy/compile/compile.go"
	inCompile = "./core/policy/compile"
	lengths   = "internal/duration/duration.go"
	inLengths = "./internal/duration"

	// It takes long to run all of Caddy's tests.
	atFound     = "./caddymodule -run ^TestFound"
	atValidate  = "./caddymodule -run ^TestValidate$"
	atRedaction = "./caddymodule -run ^TestRedact"
	atAdmin     = "./caddymodule -run ^Test(Admin|Ready|LastTrouble)"
	atRemember  = "./caddymodule -run ^Test(NodesWrittenOver|WhatAnother|StateLocked)"
	atLeaving   = "./caddymodule -run ^TestLeaving$"
	atAdapt     = "./caddymodule -run ^TestPrivateKeyInCaddyfile$"
	// And those of the commands.
	atNothing = "./caddymodule/command -run ^TestNothingDoneFails$"
	atSecret  = "./caddymodule/command -run ^Test(NoSecretIsRepeated|KeyIsNoID)$"
	atCurl    = "./caddymodule/command -run ^TestCurl"
	atExplain = "./caddymodule/command -run ^TestScripts$/^explain$"
	atHosts   = "./caddymodule/command -run ^TestScripts$/^hosts$"

	atLoad = "caddymodule/atload.go"
	flow   = "caddymodule/flow.go"
	denial = "core/denial.go"
	onDisk = "internal/disk/open.go"

	ports   = "internal/testing/address/address.go"
	inPorts = "./internal/testing/address"
	inDemo  = "./internal/demo"

	filter        = "wasmfilter/internal/plugin/plugin.go"
	filterRequest = "wasmfilter/internal/plugin/request.go"
	filterSource  = "wasmfilter/internal/plugin/source.go"
	filterConfig  = "wasmfilter/internal/plugin/config.go"
	filterNames   = "wasmfilter/internal/plugin/names.go"
	filterLog     = "wasmfilter/internal/plugin/log.go"
	inFilter      = "./wasmfilter/internal/plugin"
)

var mutants = []mutant{
	// 1 transport
	{"plaintext", check, "if !c.request.TLS && !c.terminated() {", "if false {", tables},
	{"early data", check, "if c.request.EarlyData || c.has(", "if c.has(", tables},
	{"line of Early-Data", check, `if c.request.EarlyData || c.has("Early-Data") {`, "if c.request.EarlyData {", tables},
	{"terminators listed", check, "if !c.verifier.MayTerminate(c.request.Peer) {", "if !c.verifier.MayTerminate(c.request.Peer) && false {", inCore},
	{"terminator says https", check, `return n == 1 && (proto == "https" || proto == "wss")`, `return n < 99 && proto != "x"`, inCore},
	{"terminator says it once", check, "return n == 1 && (", "return n >= 1 && (", inCore},
	{"terminator says wss", check, ` || proto == "wss")`, ")", inCore},
	{"terminators of everyone", verifier, "if !p.IsValid() || p.Bits() == 0 {", "if false {", inCore},

	// the bundle's state
	{"no bundle", check, "if c.snapshot == nil {\n\t\treturn policy.NoBundle\n\t}", "", inCore},
	{"bundle's time", check, "c.now, c.verifier.config.ClockSkew, c.verifier.config.MaxAge)", "time.UnixMilli(c.snapshot.bundle.Manifest.Version), c.verifier.config.ClockSkew, c.verifier.config.MaxAge)", inCore},
	{"max_age", mark, "case maxAge > 0 && ms-signed > maxAge.Milliseconds():", "case false:", inCore},
	{"expiry", mark, "case ms >= m.Manifest.Expires:", "case false:", inCore},
	{"clock behind", mark, "case max(signed, m.PolicyNote.Version) > ms+clockSkew.Milliseconds():", "case false:", inCore},
	{"policy note of the future", mark, "case max(signed, m.PolicyNote.Version) > ms+clockSkew.Milliseconds():", "case signed > ms+clockSkew.Milliseconds():", inBundle},
	{"rollback", mark, "case m.Manifest.Version < last.Manifest.Version:", "case false:", inCore},
	{"policy rollback", mark, "case m.PolicyNote.Version < last.PolicyNote.Version:", "case false:", inBundle},
	{"a publisher that is listed no more", mark, "case !slices.ContainsFunc(last.signedBy,", "case false && !slices.ContainsFunc(last.signedBy,", inBundle},
	{"a publisher that is still listed", mark, "case !slices.ContainsFunc(last.signedBy,", "case m.PolicyNote.Version > last.PolicyNote.Version || !slices.ContainsFunc(last.signedBy,", inBundle},
	{"fork of the policy note", mark, "case m.PolicyNote.Version == last.PolicyNote.Version && m.PolicyNote.hash != last.PolicyNote.hash:", "case false:", inBundle},
	{"lowest version of a bundle", mark, "case m.Manifest.Version < f.Version:", "case false:", inCore},
	{"lowest version of a policy note", mark, "case m.PolicyNote.Version < f.PolicyVersion:", "case false:", inCore},
	{"state's succession", state, "if err := m.CheckSuccession(last); err != nil {", "if false {", inDisk},
	{"state's trust", state, "if m, err = s.trust.Open(notes); err == nil {", "if m, err = s.trust.Open(notes); err == nil || true {", inDisk},
	{"lines of several signers", note, "if !bytes.Equal(text, own) {", "if false && !bytes.Equal(text, own) {", inBundle},
	{"fork", mark, "case m.Manifest.Version == last.Manifest.Version && m.Manifest != last.Manifest:", "case false:", inCore},
	{"bundle of the future", "core/bundle/acceptance.go", "errors.Is(err, ErrFuture) {\n\t\treturn err", "false && errors.Is(err, ErrFuture) {\n\t\treturn err", inCore},
	{"succession", "core/bundle/acceptance.go", "if err := m.CheckSuccession(last); err != nil {", "if err := m.CheckSuccession(nil); err != nil {", inCore},
	{"lowest version", "core/bundle/acceptance.go", "if err := a.MinVersion.Check(m); err != nil {", "if err := error(nil); err != nil {", inCore},

	// 2 shape
	{"rewritten", check, "if c.request.Rewritten {", "if false {", inCore},
	{"unknown method", check, "c.method, known = shape.ParseMethod(c.request.Method); !known {", "c.method, known = shape.ParseMethod(c.request.Method); !known && false {", tables},
	{"path and query", check, "!ok || !shape.CanonicalQuery(c.request.Query) {", "false {", tables},
	{"query", check, "!ok || !shape.CanonicalQuery(c.request.Query) {", "!ok {", tables},
	{"fragment in the query", query, " || q[i] == '#'", "", tables},
	{"host", check, "shape.CanonicalHost(c.request.Authority); !ok {\n\t\t\treturn policy.Malformed", "shape.CanonicalHost(c.request.Authority); !ok {\n\t\t\treturn policy.OK", tables},
	{"another Host line", check, "!ok || other != host {\n\t\t\t\t\treturn policy.Malformed", "!ok && other == host {\n\t\t\t\t\treturn policy.Malformed", tables},
	{"Host lines looked at", check, `another := c.has("Host")`, "another := false", tables},
	{"host not served", check, "c.snapshot.bundle.Policy.HostEnvironments(host); !served {", "c.snapshot.bundle.Policy.HostEnvironments(host); false {", tables},
	{"server name", check, "!ok || sni != shape.HostName(host) {", "!ok && sni == shape.HostName(host) {", tables},
	{"path's beginning", path, "path[0] != '/' || ", "", tables},
	{"double slash", path, "case s[0] == '/':\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"dot segment", path, "return len(s) > dots && s[dots] != '/'", "return dots > 0", tables},
	{"escape", path, " || !canonicalEscape(path[i:]) {", " {", tables},
	{"control and non-ASCII escape", path, "case c < 0x20, c >= 0x7f:\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"escape of a letter", path, "case ascii.IsAlnum(c):\n\t\treturn false", "case false:\n\t\treturn false", tables},
	{"escape with a meaning", path, "return strings.IndexByte(`-._~/\\%;#?`, c) < 0", "return true", tables},
	{"port", host, "n < 1 || n > 65535 || ", "", tables},

	// 3 route
	{"case of the path", route, "if fold && !m.read(&rt.root, &as, path, true, method) {", "if false {", tables},
	{"escapes of the path", route, "\tif escapes {\n\t\tothers = append(others, plain)\n\t}\n", "", tables},
	{"case of the other readings", route, " || fold && !m.read(&rt.root, &as, other, true, method) {", " {", tables},
	{"slash and escapes at once", route, "others = append(others, plain.WithoutSlash())", "_ = plain", tables},
	{"readings for every method", route, "if p != nil && (as[i] == nil || ", "if p != nil && shape.Method(i) == method && (as[i] == nil || ", tables},
	{"paths with escapes are read again", route, "if !path.HasUpper() && !path.HasEscape() && ", "if !path.HasUpper() && ", tables},
	{"paths with capitals are read again", route, "if !path.HasUpper() && !path.HasEscape() && ", "if !path.HasEscape() && ", tables},
	{"colon may be escaped", path, "const mayBeEscaped = \"!$&'()*+,=:@\"", "const mayBeEscaped = \"!$&'()*+,=@\"", tables},
	{"at sign may be escaped", path, "const mayBeEscaped = \"!$&'()*+,=:@\"", "const mayBeEscaped = \"!$&'()*+,=:\"", tables},
	{"trailing slash", route, "if others = append(others, path.WithoutSlash()); escapes {", "if escapes {", tables},
	{"preflight's Origin", check, `!c.has("Origin") || `, "", tables},
	{"preflight's method", check, ` || !c.has("Access-Control-Request-Method") {`, " {", tables},
	{"preflight opted in", route, "if pt.route.CORS && pt.matches(path) {", "if pt.matches(path) {", tables},

	// 4 credential
	{"key in the path", check, "c.path.MayHoldKey() && g.WithinEncoded(c.request.Path) || ", "", tables},
	{"key in the query", check, ` || c.request.Query != "" && g.WithinEncoded(c.request.Query) {`, " {", tables},
	{"key in a cookie", check, `l.Is("Cookie") && g.WithinEncoded(l.Value) {`, `l.Is("Cookie") && false {`, tables},
	{"encoded key", request, "return g.Within(ascii.Unescape(s))", "return false", tables},
	{"more than one", check, "case lines > 1:\n\t\treturn policy.Multiple", "case false:\n\t\treturn policy.Multiple", tables},
	{"none", check, "case lines == 0:\n\t\treturn policy.Missing", "case false:\n\t\treturn policy.Missing", tables},
	{"scheme", request, "!ascii.EqualFold(line[:n], s.Scheme)", "!ascii.EqualFold(s.Scheme, s.Scheme)", tables},
	{"space after the scheme", request, "line[n] != ' ' || ", "", "./core/credential"},
	{"names and length", check, "c.kind, c.env, ok = g.Split(value); !ok {", "c.kind, c.env, ok = g.Split(value); false {", inCore},
	{"body and checksum", lookup, "if !s.bundle.Policy.Grammar().Valid(c.key) {", "if false {", tables},
	{"checksum", grammar, "return g.imported || checksumFits(key)", "return true", tables},
	{"alphabet", grammar, "if !bodyChar[key[i]] {", "if false {", "./core/credential"},

	// 5 key
	{"unknown", lookup, "if e == nil {\n\t\treturn policy.Unknown\n\t}", "", tables},
	{"revoked", check, "case e.status == bundle.Revoked:", "case false:", tables},
	{"expired", check, "case now >= e.expires:", "case false:", tables},
	{"not yet valid", check, "case now < e.notBefore:", "case false:", tables},
	{"wrong environment", check, "case !c.environments.Has(c.env):", "case false:", tables},
	{"record against prefix", lookup, "if int(e.kind) != c.kind || int(e.env) != c.env {", "if false {", inCore},
	{"whole digest", lookup, "if ok && sameDigest(&e.digest, d) && ", "if ok && ", inCore},
	{"cached policy", lookup, " && e.policies == s.policies {", " {", inCore},
	{"cached tree", lookup, "if e.generation.Load() == s.generation {", "if true {", inCore},
	{"leaf of a cached record", lookup, "if leaf == e.leaf {", "if leaf == leaf {", inCore},
	{"panic", verifier, "if p := recover(); p != nil {", "if p := any(nil); p != nil {", inCore},

	// 6 customer token
	{"token missing", check, "if n == 0 {\n\t\treturn policy.TokenMissing\n\t}", "if n == 0 {\n\t\treturn policy.OK\n\t}", tables},
	{"token twice", check, "if n > 1 || !ok {", "if !ok {", tables},
	{"token bound", check, "err != nil || !claims.Bound(", "err != nil || false && !claims.Bound(", tables},
	{"token expired", check, "if !c.now.Before(claims.Expires) {", "if false {", tables},
	{"token's size and alphabet", tokenFile, "len(raw) > maxSize || !compact(raw)", "false", tables},
	{"token's size", tokenFile, "len(raw) > maxSize || ", "", tables},
	{"token's header", tokenFile, "_, ok := parsed.Header[name]; ok {", "_, ok := parsed.Header[name]; false && ok {", tables},
	{"token's key", tokenFile, `_, given := parsed.Header["kid"]; given && id == "" {`, `_, given := parsed.Header["kid"]; false && given {`, tables},
	{"token's spare bits", tokenFile, "\t\tjwt.WithStrictDecoding(),\n", "", tables},
	{"issuer", tokenFile, "err != nil || issuer != t.Issuer {", "err != nil && issuer != t.Issuer {", tables},
	{"audience", tokenFile, "err != nil || !slices.Contains(audience, t.Audience) {", "err != nil && !slices.Contains(audience, t.Audience) {", tables},
	{"expiry missing", tokenFile, "if err != nil || expires == nil {\n\t\treturn nil, errInvalid\n\t}", "if expires == nil {\n\t\texpires = jwt.NewNumericDate(now.Add(time.Hour))\n\t}", tables},
	{"token's not-before", tokenFile, " || notBefore != nil && now.Before(notBefore.Time) {", " && notBefore != nil {", tables},
	{"subject", tokenFile, `err != nil || subject == "" || policy.CheckIdentityValue(subject) != nil {`, "false {", tables},
	{"subject for a header", tokenFile, ` || policy.CheckIdentityValue(subject) != nil {`, " {", tables},

	// 7 permission
	{"kind without a route", check, "case route == nil && !p.UnroutedKinds.Has(c.kind):", "case false:", tables},
	{"no route", check, "case route == nil:\n\t\treturn policy.NoRoute", "case route == nil:\n\t\treturn policy.OK", tables},
	{"kind", check, "case !route.Kinds.Has(c.kind):", "case false:", tables},
	{"address", check, "case c.entry.limited && !c.addressAllowed(c.entry.record.Prefixes):", "case false:", tables},
	{"mapped address", check, "ip := c.request.ClientIP().Unmap() // R41", "ip := c.request.ClientIP()", tables},
	{"referrer", check, "case c.entry.limited && !c.originAllowed():", "case false:", tables},
	{"Origin repeated", origin, "if repeated(origin) || repeated(referer) {", "if repeated(referer) {", tables},
	{"Referer repeated", origin, "if repeated(origin) || repeated(referer) {", "if repeated(origin) {", tables},
	{"two lines of Origin", origin, "return len(lines) > 1", "return false", tables},
	{"comma at the beginning of Origin", origin, `strings.HasPrefix(line, ",") || `, "", tables},
	{"comma at the end of Origin", origin, ` || strings.HasSuffix(line, ",") {`, " {", tables},
	{"referrers joined", origin, "if ok && defaultPort[strings.ToLower(scheme)] != \"\" {", "if ok && scheme == \"\" {", tables},
	{"referrers joined, scheme in capitals", origin, "if ok && defaultPort[strings.ToLower(scheme)] != \"\" {", "if ok && defaultPort[scheme] != \"\" {", tables},
	{"keys joined", request, "if lines += s.joined(h.Value); lines == 1 {", "if lines++; lines == 1 {", tables},
	{"keys joined behind another scheme", request, "for _, part := range parts {", "for _, part := range parts[:1] {", tables},
	{"keys joined without a scheme", request, "(n == 0 || len(part) == n || ", "(len(part) == n || ", tables},
	{"referrer's scheme", origin, "from.scheme != o.scheme || ", "", tables},
	{"referrer's port", origin, " || from.port != o.port {", " {", tables},
	{"endpoint", check, "case c.entry.limited && !c.endpointAllowed():", "case false:", tables},
	{"endpoint's method", pattern, "return e.methods.Has(m) && e.pattern.matches(path)", "return e.pattern.matches(path)", tables},
	{"tenant", check, `(key.Tenant == "" || !c.match.ParamIs(route.TenantParam, key.Tenant)):`, `key.Tenant == "no one's":`, tables},
	{"tenant of a key without one", check, `(key.Tenant == "" || !c.match`, `key.Tenant != "" && (!c.match`, tables},
	{"tenant decoded", route, "if shape.Unescape(m.readings[i].raw(name)) != want {", "if m.readings[i].raw(name) != want {", tables},
	{"scope", check, "case !c.scopeAllowed(route, p.Kinds[c.kind].Scoped):", "case false:", tables},
	{"unrestricted", check, "if route.OnlyUnlimited && c.entry.limited {", "if false {", tables},
	{"own key", check, "return c.match.ParamIs(demand.OwnKey, c.entry.key.ID)", "return true", tables},
	{"scopes of each reading", scope, "for i := range m.count {\n\t\tr := &m.readings[i]", "for i := range 1 {\n\t\tr := &m.readings[i]", tables},
	{"scopes of the reading without case", route, "if r.fold {", "if false {", tables},
	{"a demand that nothing meets", check, "return len(demand.Scopes) > 0", "return true", tables},

	// what goes on, and what is answered
	{"identity headers", field, "\tif ascii.HasFoldedPrefix(name, identityPrefix) {\n\t\treturn FieldRemoved\n\t}\n", "", tables},
	{"renamed identity headers", field, "add(*n, FieldRemoved)", "_ = n", tables},
	{"folding table", fold, "t[i] = '-'", "t[i] = byte(i)", tables},
	{"override headers", field, "add(n, FieldOverride)", "_ = n", tables},
	{"override of another method", forward, "if l.Value != c.request.Method {", "if false {", tables},
	{"source headers", field, "add(src.Header, FieldRemoved)", "_ = src", tables},
	{"the token's header", field, "add(p.CustomerToken.Source.Header, FieldToken)", "_ = p", tables},
	{"customer token elsewhere", forward, "return value, d.keepToken && ", "return value, ", tables},
	{"aliases of the token's header", forward, "d.keepToken && d.policy.IsToken(name)", "d.keepToken", tables},
	{"Upgrade", field, "\tadd(\"Upgrade\", FieldUpgrade)\n", "", tables},
	{"Upgrade of all but WebSocket", forward, "return value, d.webSocket", "return value, true", tables},
	{"HTTP2-Settings", field, "\tadd(\"HTTP2-Settings\", FieldRemoved)\n", "", tables},
	{"Connection", field, "\tadd(\"Connection\", FieldConnection)\n", "", tables},
	{"Connection's options of the edge", field, "\t\tdefault:\n\t\t\tdropped = true\n\t\t\tcontinue\n", "", tables},
	{"Connection's option Upgrade", field, "\t\t\tif keepUpgrade {\n\t\t\t\tbreak\n\t\t\t}\n\t\t\tdropped = true\n\t\t\tcontinue\n", "", tables},
	{"Connection's option Upgrade of a WebSocket", field, "if keepUpgrade {", "if false {", inPolicy},
	{"WebSocket goes on", forward, "c.decision.webSocket = named", "c.decision.webSocket = false", tables},
	{"WebSocket in one line", forward, "upgrades > 1 || ", "", tables},
	{"WebSocket alone", forward, "alone = ascii.EqualFold(l.Value, webSocket)", "alone = true", tables},
	{"WebSocket with a version", forward, `protocol, _, _ := strings.Cut(option, "/")`, "protocol := option", tables},
	{"WebSocket in capitals", forward, `ascii.EqualFold(strings.Trim(protocol, " \t"), webSocket)`, `strings.Trim(protocol, " \t") == webSocket`, tables},
	{"WebSocket by HTTP/1.1", forward, "return c.request.HTTP11 && ", "return ", tables},
	{"WebSocket by GET", forward, `c.request.Method == "GET" && `, "", tables},
	{"WebSocket without a body", forward, "!c.request.Body && ", "", tables},
	{"Sec-WebSocket-Key", forward, "keys == 1", "keys <= 1", tables},
	{"Sec-WebSocket-Key twice", forward, "keys == 1", "keys >= 1", tables},
	{"Sec-WebSocket-Version", forward, "versions == 1", "versions <= 1", tables},
	{"Sec-WebSocket-Version twice", forward, "versions == 1", "versions >= 1", tables},
	{"Host that holds the key", forward, "if credential.Holds(c.request.Authority, c.key) {", "if false {", tables},
	{"key under another name", forward, "case d.elsewhere && credential.Holds(value, d.key):", "case false:", inCore},
	{"key that a denial holds", forward, "case d.Outcome == Deny && d.policy.Grammar().WithinEncoded(value):", "case false:", inCore},
	{"URL of an error page", forward, "return d.policy != nil && !d.policy.Grammar().WithinEncoded(target)", "return d.policy != nil", inCore},
	{"key where a proxy writes", forward, "if policy.FramesMessage(l.Name) {", "if false {", tables},
	{"names that frame a message", field, `case "forwarded", "via", "x-real-ip", "host", "te", "trailer", "expect":`, `case "":`, tables},
	{"X-Real-Ip", field, `"x-real-ip", "host"`, `"host"`, tables},
	{"X-Forwarded-…", field, `"x-forwarded-", `, "", tables},
	{"X-Envoy-…", field, `"x-envoy-", `, "", tables},
	{"Content-…", field, `"content-", `, "", tables},
	{"Sec-WebSocket-…", field, `, "sec-websocket-"`, "", tables},
	{"aliases of names that frame a message", field, "switch folded := ascii.FoldName(name); folded {\n\tcase \"forwarded\"", "switch folded := strings.ToLower(name); folded {\n\tcase \"forwarded\"", tables},
	{"key under another name, encoded", request, "if strings.IndexByte(value, '%') >= 0 && strings.Contains(ascii.Unescape(value), key) {", "if false {", tables},
	{"key under another name, in Basic", request, "return err == nil && strings.Contains(string(decoded), key)", "return err == nil && len(decoded) < 0", tables},
	{"what a denial keeps", answer, "d.keepToken, d.webSocket = false, false", "", inCore},
	{"trailers", forward, " || d.policy.Field(name) != policy.FieldOther {", " {", tables},
	{"key in a trailer", forward, "!credential.Holds(value, d.key) && ", "", tables},
	{"key as the name of a trailer", forward, " && !strings.Contains(strings.ToLower(name), strings.ToLower(d.key))", "", tables},
	{"CORS of a denial", answer, "if route != nil && route.CORS {", "if false {", tables},
	{"gRPC", answer, "if isGRPC(lines) {", "if false {", tables},
	{"no gRPC over plain HTTP", answer, "if reason == policy.Plaintext {", "if false {", tables},
	{"not to be cached", answer, "\n\t\tHeader{Name: \"Cache-Control\", Value: \"no-store\"},", "", tables},

	// the bundle
	{"compiled policy's hash", bundleFile, "if HashOf(compiled) != mark.PolicyNote.PolicyHash {", "if false {", inBundle},
	{"threshold", trust, "if len(signed) < t.threshold {", "if false {", inBundle},
	{"audience of the bundle", trust, "if n.Audience != t.audience {", "if false {", inBundle},
	{"name of the bundle", trust, `if t.name != "" && n.Name != t.name {`, "if false {", inBundle},
	{"manifest's policy note", trust, "if manifest.PolicyNoteHash != m.PolicyNote.hash {", "if false {", inBundle},
	{"one key under two names", trust, "if other.key == v.key {", "if false {", inBundle},
	{"private key told", trust, "if HoldsPrivateKey(s) {", "if false {", inBundle},
	{"private key in lower case", trust, "strings.Contains(strings.ToUpper(s), ", "strings.Contains(s, ", inBundle},
	{"private key without its head", trust, `return fmt.Sprintf("%q", name+"+"+hash)`, `return fmt.Sprintf("%q", s)`, inBundle},
	{"low order", trust, "case new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1:", "case false:", inBundle},
	{"canonical key", trust, "case !bytes.Equal(point.Bytes(), v.key[:]):", "case !bytes.Equal(point.Bytes(), point.Bytes()):", inBundle},
	{"note's size", trust, "if len(msg) > MaxNote {", "if false {", inBundle},
	{"life", note, "life <= 0 || life > MaxLife.Milliseconds()", "false", inBundle},
	{"node's hash", node, "if HashOf(b) != hash {", "if false {", inBundle},
	{"leaf's place", node, "if !at.covers(&d) || ", "if ", inBundle},
	{"leaf's count", node, "if r.Err() == nil && count != n.count {", "if false {", inBundle},
	{"branch's place", node, "if at.count <= leafRecords || at.depth%branchBits != 0 || ", "if ", inBundle},
	{"branch's count", node, "if total != n.count {", "if false {", inBundle},
	{"kinds and environments", node, `return errors.New("its kind or environment may not be published under the policy note")`, "return nil", inBundle},
	{"critical field", node, "if body.critical != 0 {", "if false {", inBundle},
	{"record's strings counted", node, "len(rec.Digest) + len(raw) + body.referred", "len(rec.Digest) + len(raw)", inBundle},
	{"references ascend", "core/bundle/recordcodec.go", "if r.Err() == nil && i <= last {", "if r.Err() == nil && i <= last && false {", inBundle},
	{"reference is there", "core/bundle/recordcodec.go", "if i >= len(b.strings) {", "if i > len(b.strings) {", inBundle},
	{"strings are used", node, "if slices.Contains(body.used, false) {", "if false {", inBundle},
	{"parts tile", node, "err != nil || len(rest) > 0 {", "err != nil || len(rest) > 99 {", inBundle},
	{"empty part's hash", node, "case (p.count == 0) != (p.hash == Hash{}):", "case false:", inBundle},
	{"part is divided", node, "case p.count > leafRecords && (int(p.depth) != branchBits || n.depth+branchBits >= digestBits):", "case false:", inBundle},
	{"needless division", node, "if err == nil && left+right <= leafRecords {", "if false {", inBundle},
	{"node's format", node, "if b[1] != nodeFormat {", "if false {", inBundle},
	{"pack's size", "core/bundle/pack.go", "tail != uint64(size)-p.index {", "tail == 1 {", inCore},
	{"digest of nothing", record, "case r.Digest == zero:", "case r.Digest == zero && false:", inBundle},
	{"record's size", record, "if n := r.size(); n > maxRecord {", "if n := 0; n > maxRecord {", inBundle},

	// what is kept and published
	{"state that cannot be read", state, "if err != nil && !dropped {", "if false {", inDisk},
	{"state's mode", state, "ReplaceBytes(s.path, 0o600, next)", "ReplaceBytes(s.path, 0o644, next)", inDisk},
	{"pruning for another bundle", directory, "err != nil || string(now) != string(b.Notes.Manifest) {", "err != nil || now == nil {", inDisk},
	{"object of another size", directory, "err == nil && info.Size() == int64(len(b)) {", "err == nil && info != nil {", inDisk},
	{"half of a life", mark, "case left <= life/2:", "case false:", inBundle},
	{"a life's last hour", mark, "case left <= min(time.Hour, life/4):", "case left <= time.Hour:", inBundle},
	{"one publisher after the other", lock, "return l.unlock, l.err", "if l.err == nil {\n\t\t\tl.unlock()\n\t\t}\n\t\treturn func() {}, l.err", inControl},
	{"renewal after the file's version", renewing, "p.seal(note, opened.Manifest.Version, ", "p.seal(note, 0, ", inControl},
	{"renewal of an older copy", renewing, "if p.storeIsAhead(ctx, opened) {", "if false {", inControl},
	{"publishing after a renewal", inForce, "last.Version = max(last.Version, b.Manifest.Version)", "_ = last", inControl},
	{"policy note in force", inForce, "if b.PolicyNote.Version > last.PolicyVersion {", "if false {", inControl},
	{"life of a renewal", renewing, "life = Life(opened.Life())", "life = Life(bundle.DefaultLife)", inControl},
	{"store that lacks something", comparing, "if err := lacks(ctx, tx, opened); err != nil {", "if err := error(nil); err != nil {", inControl},
	{"store that lacks a key", comparing, "case k == nil || k.ID != r.KeyID:", "case k != nil && k.ID != r.KeyID:", inControl},
	{"store that lacks a revocation", comparing, "own < r.Status {", "own+1 < r.Status {", inControl},
	{"store that lacks an end", comparing, "case end != nil:", "case false && end != nil:", inControl},
	{"version of what is published", comparing, "if last.Version == w.manifest.Version && sameRoot {", "if sameRoot {", inControl},
	{"directory as the witness", inForce, `if p.bundle.Directory != "" {`, "if false {", inControl},
	// commands
	{"private key in a file of signers", signers, "if bundle.HoldsPrivateKey(line) {", "if false {", inDisk},
	{"private key as a path", signers, "if bundle.HoldsPrivateKey(path) {", "if false {", inDisk},
	{"private key in Envoy's configuration", filterConfig, "if bundle.HoldsPrivateKey(string(raw)) {", "if false {", inFilter},
	{"private key in the Caddyfile", caddyfile, "if bundle.HoldsPrivateKey(d.Val()) {", "if false {", atAdapt},
	{"group without a command", usage, "args, run = cobra.ArbitraryArgs, unknownCommand", "args, run = cobra.ArbitraryArgs, func(c *cobra.Command, _ []string) error { return c.Help() }", atNothing},
	{"status of a mistake", usage, "const statusUsage = 2", "const statusUsage = 1", atNothing},
	{"API key as an argument", usage, "if err := refuse(what, a); err != nil {", "if err := refuse(what, a); err != nil && i > 0 {", atSecret},
	{"API key for an ID", usage, "if asksForKey(cmd) && keyForm.MatchString(a) {", "if false {", atSecret},
	{"API key in a flag", usage, "if err := refuse(name, s); err != nil {", "if err := refuse(name, s); false {", atSecret},
	{"error with a secret", secrets, "return keyForm.ReplaceAllString(s, \"[API key]\")", "return s", atSecret},
	{"error with a private key", secrets, "s = privateForm.ReplaceAllString(s, \"[private key]\")", "", atSecret},
	{"API key as a name", mistaken, "if g.Within(s) {", "if g.Within(s) && false {", inControl},
	{"name that a terminal would obey", mistaken, "!unicode.IsPrint(r)", "false && !unicode.IsPrint(r)", inControl},
	{"prefix of everyone", mistaken, "if meant[0].Bits() == 0 {", "if false {", inControl},
	{"prefix wider than it looks", mistaken, "err == nil && prefix.Masked() != prefix", "err == nil && false", inControl},
	{"referrer of anybody", mistaken, "suffix == domain", "suffix == domain && false", inControl},
	{"star in an endpoint", "core/policy/pattern.go", `if strings.Contains(part, "*") {`, `if part == "*." {`, inControl},
	{"colon in an endpoint", "core/policy/pattern.go", `strings.CutPrefix(part, ":"); ok {`, `strings.CutPrefix(part, ":"); ok && false {`, inControl},
	{"wildcards in an endpoint", mistaken, "policy.CheckWildcards(path); err != nil {", "policy.CheckWildcards(path); false {", inControl},
	{"wildcards in a policy", "core/policy/compile/routes.go", "policy.CheckWildcards(path.s); err != nil {", "policy.CheckWildcards(path.s); false {", "./core/policy/compile"},
	{"endpoint on no route", mistaken, "if !p.Reaches(kind, e) {", "if !p.Reaches(kind, e) && false {", inControl},
	{"endpoint of another kind", pattern, "q.route.Kinds.Has(kind) && q.route.Methods", "q.route.Methods", inPolicy},
	{"scoped key without scopes", mistaken, "p.Kinds[kind].Scoped && !freeRoute(p, kind)", "false", inControl},
	{"end before the begin", mistaken, "n.NotBefore != nil && !n.Expires.After(*n.NotBefore)", "false", inControl},
	{"scope twice", newKey, "if slices.Contains(n.Scopes[:i], s) {", "if i < 0 && s == \"\" {", inControl},
	{"roll that ends at once", keyring, "if roll.End != nil && !roll.End.After(r.bundle.home.now()) {", "if false {", inControl},
	{"roll that lengthens a life", keyring, "(old.Expires == nil || roll.End.Before(*old.Expires))", "true", inControl},
	{"bundle's name on a way out", home, "if !bundleName.MatchString(name) {", "if false {", inControl},
	{"hosts of all environments", hostFlags, "if !several(environments) {", "if !several(environments) || true {", atHosts},
	{"scheme that never matches", compiling, "if slices.Contains(structured, strings.ToLower(s.Scheme.s)) {", "if false {", inCompile},
	{"length of time too long", lengths, "if d*unit/unit != d {", "if false {", inLengths},
	{"length of time of two units", lengths, `|| ok && strings.Trim(days, "+-.0123456789") != ""`, "", inLengths},
	{"file that is gone", comparing, "if err != nil || last.Version == 0 || last.Tree.Root == empty.Root {", "if err != nil || empty.Keys == 0 {", inCommand},
	{"expired key rolled", keyring, "if old.Status == revoked || old.Status == statusExpired {", "if old.Status == revoked {", inControl},
	{"signing key's mode", signing, "os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)", "os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)", inControl},
	{"signing key of others", private, "if OpenToOthers(info) {", "if false {", inControl},
	{"store's mode", sqlite, "case disk.OpenToOthers(info):", "case disk.OpenToOthers(info) && false:", inControl},
	{"listing that waits", sqlite, `connect(path, url.Values{"_txlock": {"deferred"}, `, `connect(path, url.Values{"_txlock": {"immediate"}, `, inStore},
	{"publishing what is staged", publisher, "if err := staged.Place(ctx); err != nil {", "if err := error(nil); err != nil {", inControl},
	{"store is not made by looking", home, "h.openStore(sqlstore.OpenSQLite)", "h.openStore(sqlstore.MakeSQLite)", inControl},

	// locks, clocks and files
	{"state of an audience", state, "a != bundle.DefaultAudience {", "a != a {", inDisk},
	{"lock that stays locked", state, "case s.locked.Load() || time.Since", "case time.Since", inDisk},
	{"notes of a file", onDisk, "g.notes == before.notes && ", "", inDisk},
	{"file read as a whole", onDisk, "if info.Size() <= maxWhole {", "if false {", inDisk},
	{"no bundle for this edge", "caddymodule/guard.go", "if errors.Is(refused, bundle.ErrForeign) {", "if false {", atValidate},
	{"name of a foreign bundle", trust, "foreign(\"it is for the bundle", "fmt.Errorf(\"it is for the bundle", atValidate},
	{"file that is no bundle", "core/bundle/pack.go", "return h, foreign(", "return h, errors.New(", atValidate},

	// what is found at load
	{"host that no policy names", atLoad, "case !served:\n\t\t\treturn", "case !served && false:\n\t\t\treturn", atFound},
	{"port that the policy does not name", atLoad, "return p.Serves(named(port)) }) {", "return true }) {", atFound},
	{"port that stands for 443", atLoad, "ports = append(ports, 443)\n", "\n", atFound},
	{"listener wrapper", atLoad, `w.Wrapper == "http_redirect"`, `w.Wrapper == "x"`, atFound},
	{"redirect by hand", atLoad, "if f.isOwn(h.location) {", "if false {", atFound},
	{"rewrite of everything", atLoad, "case one.came&(open|elsewhere) == 0:", "case false:", atFound},
	{"rewrite that does not come there", atLoad, "case one.came&(openRewritten|elsewhereRewritten) == 0:", "case false:", atFound},
	{"way around", atLoad, "around.reached[upstream]&unguarded != 0 {", "around.reached[upstream]&unguarded != 0 && false {", atFound},
	{"way around by a route before", atLoad, "case rs&(passed|passedRewritten) != 0:\n\t\t\t\treturn", "case false:\n\t\t\t\treturn", atFound},
	{"upstream that comes before keystile", atLoad, "case f.came == 0:\n\t\t\t\treturn", "case false:\n\t\t\t\treturn", atFound},
	{"answer that comes before keystile", atLoad, "if f.came == 0 {\n\t\t\tl.warn", "if false {\n\t\t\tl.warn", atFound},
	{"denied, and sent on by handle_errors", atLoad, "pages.reached[upstream]&open != 0", "false", atFound},
	{"failed, and sent on by handle_errors", flow, "f.failed |= rs", "", atFound},
	{"plain HTTP alone", atLoad, "len(b.TLSTerminators) > 0 || !l.plain(name)", "true", atFound},
	{"one warning for two addresses", atLoad, "if !a.warned[msg] {", "if true {", atFound},
	{"partial", atLoad, "if p.handler.keystile.Partial || p.top < 0 {", "if p.top < 0 {", atFound},
	{"hosts of Caddy's redirects", "caddymodule/plainhttp.go", "case caddyhttp.MatchHost:\n\t\treturn m", "case caddyhttp.MatchHost:\n\t\treturn nil", atFound},
	{"matcher that is the opposite", flow, "r.rest == asked.negates && f.alike", "false && f.alike", atFound},
	{"rewrite to one path", flow, "rs = rs.rewritten(); h.fixed {", "rs = rs.rewritten(); false {", atFound},
	{"rewrite to a path that clients choose", "caddymodule/httpconfig.go", " && !bytes.ContainsRune(change.to, '{')", "", atFound},
	{"path behind a redirect's host", atLoad, "host, _, _ = strings.Cut(host, path)", "_ = path", atFound},
	{"route of some addresses", flow, "(!every || r.guests)", "!every", atFound},
	{"route of other hosts", flow, "(!every || r.guests)", "r.guests", atFound},
	{"named routes", flow, "if r := s.NamedRoutes[h.invokes]; r != nil {", "if r := s.NamedRoutes[h.invokes]; false {", atFound},
	{"groups of routes", flow, `strings.Contains(groups, "\x00"+r.group+"\x00")`, "false", atFound},
	{"terminal routes", flow, "!r.terminal {", "true || !r.terminal {", atFound},
	{"equal matcher", flow, " && !f.alike(f.missed, r, r.rest, one)", "", atFound},
	{"rewrite between equal matchers", flow, "(r.rewrites == asked.rewrites || ", "(true || ", atFound},
	{"basic_auth", flow, "return rs&(passed|passedRewritten) | (rs & unguarded << 2) | rs&(elsewhere|elsewhereRewritten)", "return rs", atFound},
	{"redirect to a port", atLoad, "net.SplitHostPort(host); err == nil {", "net.SplitHostPort(host); false && err == nil {", atFound},
	{"wildcard within a host", flow, "case covers(i, o):", "case false:", atFound},
	{"response that a proxy handles", flow, "f.reached[u] |= rs\n\t\t}\n\t\tf.routes(h.routes, rs)", "f.reached[u] |= rs\n\t\t}", atFound},
	{"path in one address of several", "caddymodule/httpconfig.go", "hostsAlone = hostsAlone && len(set) == 0", "hostsAlone = hostsAlone || len(set) == 0", atFound},
	{"handlers in others", "caddymodule/httpconfig.go", "if handlerJSON.Match(b) {", "if false {", atFound},

	// denial lines and request IDs
	{"key in a line of the log", denial, "d.policy.Grammar().MayHold(sent)", "false", inCore},
	{"key in a line, decoded again", request, "\t\ts = decoded\n", "\t\treturn false\n", inCore},
	{"length of a line of the log", denial, "if b.Len() >= maxShown {", "if false {", inCore},
	{"text of a line of the log", denial, "c > ' ' && c < 0x7f {", "true || c > ' ' {", inCore},
	{"kinds that a route allows", denial, "kinds = d.route.Kinds", "_ = d.route.Kinds", inCore},
	{"ID of what is allowed", verifier, "} else if c.request.WithID {", "} else if true {", inCore},
	{"client's Request-Id", forward, "return value, d.RequestID == \"\"", "return value, true", inCore},
	{"Request-Id upstream", "caddymodule/handler.go", "r.Header[policy.RequestID] = values[len(d.Set):]", "_ = values", "./caddymodule -run ^TestDenialLine"},
	{"key in Envoy's name of a request", filterRequest, "d.Show(id)", "id", inFilter},
	{"plain HTTP in the filter's log", filterRequest, "if !r.TLS { // nothing", "if false { // nothing", inFilter},

	{"file written over", "caddymodule/guard.go", "if d.Err == nil || !errors.As(d.Err, &node) {", "if true || !errors.As(d.Err, &node) {", atRemember},
	{"fork of what is remembered", "caddymodule/memory.go", "if errors.Is(err, bundle.ErrRollback) || errors.Is(err, bundle.ErrForked) {", "if errors.Is(err, bundle.ErrRollback) {", atRemember},
	{"rollback of what is remembered", "caddymodule/memory.go", "if errors.Is(err, bundle.ErrRollback) || errors.Is(err, bundle.ErrForked) {", "if errors.Is(err, bundle.ErrForked) {", atRemember},
	{"lock at the start", "caddymodule/memory.go", " && !errors.Is(m.err, disk.ErrLocked) {\n\t\treturn errState", " {\n\t\treturn errState", atRemember},
	{"whose address", filterRequest, "if !real && p.config.ClientIP != forwarded {", "if !real && false {", inFilter},
	{"ready", filterRequest, `status, body = 503, e.name+": "+err.Error()+"\n"`, "_ = err", inFilter},
	{"acceptance of notes", filterSource, "s.accepts.Check(m, s.found, s.now())", "s.accepts.Check(m, nil, s.now())", inFilter},
	{"clock_skew of notes", filterSource, "cmp.Or(int64(c.ClockSkew), int64(bundle.DefaultClockSkew))", "cmp.Or(0, int64(bundle.DefaultClockSkew))", inFilter},
	{"what is shared is raised", filterSource, "err == nil && s.found.CheckSuccession(there) != nil {", "err == nil && there == nil {", inFilter},
	{"who has gone", "wasmfilter/internal/plugin/fetch.go", "return r == request", "return false", inFilter},
	{"entity tag of another", filterSource, "\t\ts.etag = \"\"\n", "", inFilter},
	{"refused bundle waits", filterSource, "\ts.failed = s.now()\n\tif text", "\tif text", inFilter},
	{"refused bundle is waited for", filterSource, " || !past(s.now(), s.failed, retryInterval) {", " {", inFilter},
	{"lease too far ahead", filterSource, "case ahead > 0 && ahead <= longest:", "case ahead > 0:", inFilter},
	{"clock set back", filterSource, "passed < 0 || ", "", inFilter},
	{"keys used last", "wasmfilter/internal/plugin/used.go", "known || len(u.seen) < maxUsed {", "known || len(u.seen) >= 0 {", inFilter},

	// the filter's source
	{"later notes that are shared", filterSource, "err == nil && s.found.CheckSuccession(there) != nil {", "err == nil && s.found.CheckSuccession(there) != nil && false {", inFilter},
	{"ready without a bundle", filterRequest, "if err := e.verifier.Status(); err != nil {", "if err := e.verifier.Status(); err != nil && false {", inFilter},
	{"request that ended while it waited", "wasmfilter/internal/plugin/fetch.go", "return r == request })", "return r == request && false })", inFilter},
	{"refused bundle on every tick", filterSource, "func (s *source) refuse(err error) {\n\ts.failed = s.now()\n", "func (s *source) refuse(err error) {\n", inFilter},
	{"keys noted as used", "wasmfilter/internal/plugin/used.go", "known || len(u.seen) < maxUsed {", "known || true {", inFilter},
	{"names of fields", filterNames, "if own == name {", "if strings.EqualFold(own, name) {", inFilter},
	{"names of fields given twice", filterNames, "n == name || isStruct &&", "false && isStruct &&", inFilter},
	{"text of a log line", filterLog, "case strconv.IsPrint(r):", "case strconv.IsPrint(r) || r > ' ':", inFilter},
	{"length of a log line's text", filterLog, "if i >= maxText {", "if i >= maxText && false {", inFilter},

	// the filter
	{"filter: TLS", filterRequest, `if len(p.host.Property("connection", "tls_version")) == 0 {`, "if false {", inFilter},
	{"filter: plain HTTP reads nothing", filterRequest, `if len(p.host.Property("connection", "tls_version")) == 0 {`, `if p.host.RequestHeaders(); len(p.host.Property("connection", "tls_version")) == 0 {`, inFilter},
	{"filter: trailer", filterRequest, "return p.filterTrailers(&b.decision)", "return Continue", inFilter},
	{"filter: trailer of a request that waits", filterRequest, "b.trailers = true", "b.trailers = false", inFilter},
	{"filter: trailer of a request that waited", filterRequest, "if b.trailers && action == Continue {", "if false {", inFilter},
	{"filter: trailer of nobody's request", filterRequest, "return p.unavailable() // nothing was said to follow", "return Continue", inFilter},
	{"filter: trailer for another host", filterRequest, "case b.passed:", "case false:", inFilter},
	{"filter: line of several goes", filterRequest, "if to, ok := becomes(name, l.Value); l.Name == name && ok {", "if to := l.Value; l.Name == name {", inFilter},
	{"filter: lines of several stay", filterRequest, "if to, ok := becomes(name, l.Value); l.Name == name && ok {", "if to, ok := becomes(name, l.Value); ok && false {", inFilter},
	{"filter: WebSocket by HTTP/1.1 alone", filterRequest, `r.HTTP11 = string(p.host.Property("request", "protocol")) == "HTTP/1.1"`, "r.HTTP11 = true", inFilter},
	{"filter: body of a WebSocket", "wasmfilter/internal/plugin/headers.go", `r.Body = r.Body || l.Value != "0"`, "", inFilter},
	{"filter: who ends TLS", filterConfig, "case c.TLSTerminators != nil:", "case false:", inFilter},

	// what fresh eyes found that no test noticed
	{"lines that all requests of a key share", check, "slices.Clip(set)", "set", inCore},
	{"trailers of public routes", forward, `return d.key == "" || `, "return ", inCore},
	{"end that was taken away", lookup, "h.seen, h.expires = s, never", "h.seen = s", inCore},
	{"cached node of another hash", "core/bundle/cache.go", "!ok || n.hash != hash ||", "!ok ||", inBundle},
	{"cached node of another place", "core/bundle/cache.go", "|| !n.standsAt(at) ||", "||", inBundle},
	{"cached node of other digests", "core/bundle/cache.go", "return at.covers((*credential.Digest)(n.digest(0)))", "return at.covers((*credential.Digest)(n.digest(0))) || true", inBundle},
	{"readings of another method's route", route, "if p != nil && (as[i] == nil || ", "if p != nil && (as[i] != nil && ", inPolicy},
	{"endpoint's empty parameter", pattern, `s.param != "" && seg == "" || `, "", inPolicy},
	{"scope's parameter is a word", scope, `name != "" && !strings.ContainsAny(name, "{}:/ ")`, `name != ""`, inPolicy},
	{"list that is too short", "core/policy/codec.go", "if err == nil && count != len(items) {", "if false && count != len(items) {", inPolicy},
	{"number that does not fit", "core/policy/codec.go", "uint64(*to) != i || i == 0", "i == 0", inPolicy},
	{"key of another bundle by its digest", storeTx, "WHERE bundle = ? AND digest = ?`, t.bundle, d[:])", "WHERE digest = ?`, d[:])", inStore},
	{"environment that is not in force", publication, " || !slices.Contains(p.Note.Environments, r.Environment)", "", inControl},
	{"tree whose root is gone", growing, "whole = true", "_ = whole", inControl},
	{"tree whose node is gone", growing, "if !errors.As(err, &node) {", "if true || !errors.As(err, &node) {", inControl},
	{"edit of a status", growing, "e.ids = append(e.ids, id)", "", inControl},
	{"edit of a new key", growing, "e.ids = append(e.ids, k.ID)", "", inControl},
	{"nodes that are wanted an hour more", growing, "Add(-collectAfter)", "Add(0)", inControl},
	{"nodes that a renewal wants", inForce, "last.Expires = max(last.Expires, b.Manifest.Expires)", "", inControl},
	{"nodes that are collected", growing, "g.tx.DropNode(ctx, h, g.wanted)", "nil", inControl},
	{"nodes of a tree that is built anew", growing, "g.tx.DropNodes(ctx, g.wanted)", "error(nil)", inControl},
	{"store of a version to come", migrating, "has > wants", "false", inStore},
	{"column that may be there", migrating, "err == nil && found == 0", "err == nil", inStore},
	{"node that comes back", storeTx, "DO UPDATE SET node = excluded.node, wanted_until = NULL", "DO NOTHING", inStore},
	{"edit's kind", publication, "!slices.Contains(p.Note.Kinds, r.Kind) || ", "", inBundle},
	{"key changed twice", updating, "i > 0 && c.Digest == changes[i-1].Digest", "false", inBundle},
	{"field that would be lost", updating, "if HashOf(u.leaf(records)) != n.hash {", "if false {", inBundle},
	{"key that is taken out and not there", updating, "case !there:", "case false:", inBundle},
	{"branch that fits into a leaf", updating, "if count <= leafRecords {", "if false {", inBundle},
	{"older directory as the witness", inForce, "(w == nil || dir.manifest.Version > w.manifest.Version)", "true", inControl},
	{"end of a revoked key", "internal/control/restore.go", "status = &k.Status", "status = new(string)\n\t\t*status = active", inControl},
	{"limits that the store cannot hold", "internal/control/restore.go", "if len(r.Limits) > 0 {", "if false {", inControl},
	{"key of another bundle", "internal/control/restore.go", "if k.ID != r.KeyID {", "if false {", inControl},
	{"next publisher that is not listed", "internal/control/rotate.go", "if !slices.Contains(opened.PolicyNote.Publishers, next[0].Verifier) {", "if false && !slices.Contains(opened.PolicyNote.Publishers, next[0].Verifier) {", inControl},
	{"escapes in names of keys", "internal/control/newkey.go", `if strings.Contains(s, "%") {`, "if false {", inControl},
	{"lock that is had again", state, "s.locked.Store(false)", "", inDisk},
	{"bundle that is not in force is not ready", "caddymodule/ready.go", "if err := g.verifier.Status(); err != nil {", "if err := g.verifier.Status(); err != nil && g.verifier.Bundle() == nil {", atAdmin},
	{"all bundles are ready", "caddymodule/ready.go", "if len(names) == 0 {\n\t\tnames = slices.Sorted", "if false {\n\t\tnames = slices.Sorted", atAdmin},
	{"readiness before redirects", "caddymodule/ready.go", `httpcaddyfile.Before, "redir")`, `httpcaddyfile.After, "rewrite")`, atAdmin},
	{"readiness is not stored", "caddymodule/ready.go", `w.Header().Set("Cache-Control", "no-store")`, "", atAdmin},
	{"admin endpoint only reads", "caddymodule/admin.go", "if r.Method != http.MethodGet && r.Method != http.MethodHead {", "if false {", atAdmin},
	{"bundle that the admin endpoint does not know", "caddymodule/admin.go", "if i < 0 {", "if i = max(i, 0); false {", atAdmin},
	{"last error is what led to it", "caddymodule/guard.go", "g.logger.Load().Error(\"every request is denied\", zap.String(\"bundle\", g.name), zap.String(\"file\", g.source.path), zap.Error(err))", "g.tell(\"every request is denied\", err)", atAdmin},
	{"last error is kept", "caddymodule/guard.go", `g.trouble.Store(&trouble{time.Now(), msg + ": " + err.Error()})`, "", atAdmin},
	{"who of the signers has signed", "core/bundle/signatures.go", "return signatures(t.signers, signed)", "return signatures(t.signers, signed[:0])", inBundle},
	{"who of the publishers has signed", "core/bundle/signatures.go", "return signatures(publishers, m.signedBy)", "return signatures(publishers, m.publishers)", inBundle},
	{"port that another process has taken", ports, "if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {", "if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {", inPorts},
	{"port where somebody listens", ports, "if err := unused(port); err != nil {", "if err := unused(port); false {", inPorts},
	{"port of UDP", ports, "c, err := net.ListenPacket(\"udp\", all)", "c, err := net.ListenPacket(\"udp\", \":0\")", inPorts},
	{"demo's HTTP port is its own", "internal/demo/ports.go", "got != nonce || ", "got == \"\" || ", inDemo},
	{"demo's HTTPS port is its own", "internal/demo/ports.go", ", {d.ports.https, d.askHTTPS}} {", "} {", inDemo},
	{"demo's ports are free", ports, "if err := Take(port); err != nil {", "if err := Take(port); false {", inDemo},
	{"response that has left", "caddymodule/underway.go", "a.next.previous = a.previous", "_ = a.previous", atLeaving},
	{"proxy that does not obey", filterRequest, "if p.filter(p.request.Headers.Lines(), d.Line, p.host.RemoveRequestHeader, p.host.AddRequestHeader) != nil {", "if p.filter(p.request.Headers.Lines(), d.Line, p.host.RemoveRequestHeader, p.host.AddRequestHeader); false {", inFilter},
	{"identity that cannot be set", filterRequest, "if p.host.SetRequestHeader(h.Name, h.Value) != nil {", "if p.host.SetRequestHeader(h.Name, h.Value); false {", inFilter},
	{"token's own algorithm", "core/internal/customer/customer.go", "jwt.WithValidMethods([]string{t.Algorithm}), // never", "// never", "./core/internal/customer"},
	{"bundle that a decision began with", lookup, "s, d := c.snapshot, &c.digest", "s, d := c.verifier.current.Load(), &c.digest", inCore},
	{"text that is not UTF-8 in a Struct", "wasmfilter/internal/plugin/structure.go", "twice || !utf8.ValidString(name) {", "twice || false && !utf8.ValidString(name) {", inFilter},
	{"configuration that is not UTF-8", filterConfig, "} else if !utf8.Valid(raw) {", "} else if false && !utf8.Valid(raw) {", inFilter},
	{"step of the bundle noted", check, "\tc.step = stepBundle\n", "", inCore},
	{"step of the shape noted", check, "\tc.step = stepShape\n", "", inTable},
	{"step of one request noted", check, "\tc.step = stepOneRequest\n", "", inTable},
	{"step of the route noted", check, "\tc.step = stepRoute\n", "", inTable},
	{"step of the credential noted", check, "\tc.step = stepCredential\n", "", inTable},
	{"step of the key elsewhere noted", check, "\tc.step = stepKeyElsewhere\n", "", inTable},
	{"step of the lookup noted", check, "\tc.step = stepLookup\n", "", inTable},
	{"step of the validity noted", check, "\tc.step = stepValidity\n", "", inTable},
	{"step of the customer token noted", check, "\tc.step = stepCustomerToken\n", "", inTable},
	{"step of the permission noted", check, "\tc.step = stepPermission\n", "", inTable},
	{"key that stands for another", lookup, "if c.standsFor != nil {", "if false {", inCore},
	{"panic while explaining", explain, "if p := recover(); p != nil {", "if p := any(nil); p != nil {", inCore},
	{"panic while describing", explain, "defer func() { _ = recover() }() // what", "// what", inCore},
	{"cookie in an explanation", explain, "case l.Is(\"Cookie\"):", "case false:", inCore + " -run ^TestExplainShows"},
	{"credential behind its scheme in an explanation", explain, "return []string{l.Value, rest}", "_ = rest\n\t\treturn []string{l.Value}", inCore + " -run ^TestExplainShows"},
	{"key in an explanation", explain, `if strings.Contains(folded, "_"+env+"_") {`, "if env == folded {", inCore + " -run ^TestExplainShows"},
	{"escaped key in an explanation", explain, "strings.ToLower(ascii.Unescape(s))", `strings.ToLower(s + ascii.Unescape(""))`, inCore + " -run ^TestExplainShows"},
	{"token in an explanation", explain, "if len(secret) >= shortestSecret && credential", "if false && credential", inCore + " -run ^TestExplainShows"},
	{"key given as its ID", "caddymodule/command/explain.go", "case b.Policy.Grammar().Within(id):", "case false:", atExplain},
	{"key given as an option", "caddymodule/command/curl.go", "\t\treturn \"(not shown)\"", "\t\treturn s", atCurl},
	{"kind that a candidate lacks", "caddymodule/command/explain.go", "if p.KindIndex(r.Kind) < 0 {", "if false {", atExplain},
	{"only OPTIONS is a preflight", check, "c.method == shape.OPTIONS && c.preflight(p)", "c.preflight(p)", tables},
	{"redact: customer tokens in base64", redactFind, " && !bytes.Contains(decoded, []byte(token))", "", inRedact},
	{"keys in an explanation", explain, "p.Grammar().MayHold(s) || redact.Default.With(p).Text(s) != s", "redact.Default.With(p).Text(\"\") != \"\"", inCore + " -run ^TestExplainShows"},
	{"default log after a failed load", "caddymodule/guard.go", "keepLogsRedacted()", "", "./caddymodule -run ^TestDefaultLogAfter"},
	{"redact: base64", redactFind, "found = r.within(found, s, from, to, 6, &base64Digit)", "", inRedact},
	{"redact: hexadecimal", redactFind, "found = r.withinHex(found, s, from, to)", "", inRedact},
	{"redact: encoded text begins anywhere", redactFind, "for offset := range 8 / (bits & -bits) {", "for offset := range 1 {", inRedact},
	{"redact: the base64 of URLs", redactFind, "b['-'], b['_'] = b['+'], b['/']", "", inRedact},
	{"redact: percent twice", "core/redact/redact.go", "for range 2 {", "for range 1 {", inRedact},
	{"redact: a known key's beginning", redactFind, "if end-body >= knownBody {", "if false {", inRedact},
	{"redact: a key in upper case", redactFind, "ascii.EqualFold(s[begin:body], h)", "s[begin:body] == h", inRedact},
	{"redact: names of programs stay", redactFind, "n < looseBody || n < keyBody && !telling", "n < looseBody", inRedact},
	{"redact: private keys", redactFind, "found = append(found, span{begin, from})\n\t}\n}", "_ = begin\n\t}\n}", inRedact},
	{"redact: aliases of headers", "core/redact/redact.go", "ascii.HasFoldedPrefix(name, n)", "name == n", inRedact},
	{"redact: a private key before a key", "core/redact/redact.go", "\tslices.SortFunc(spans, func(a, b span) int { return a.from - b.from })\n", "", inRedact},
	{"redact: rules that share a list", "core/redact/redact.go", "names: slices.Clone(r.names)", "names: r.names", inRedact},
	{"redact: headers of the policy", "core/redact/redact.go", "with.names = add(with.names, ascii.FoldName(s.Header))", "_ = s", inRedact},
	{"redact: headers of the customer token", "core/redact/redact.go", "with.names = add(with.names, ascii.FoldName(p.CustomerToken.Source.Header))", "", inRedact},
	{"logs: cores of later loggers", redactCaddy, "*core = redacting(*core)", "_ = core", atRedaction},
	{"logs: modules that are there already", redactCaddy, "redactFields(reflect.ValueOf(m))", "", atRedaction},
	{"logs: the app and its servers", redactCaddy, "*logger = redactedLogger(*logger)\n\t}\n\treturn err", "}\n\treturn err", atRedaction},
	{"logs: the default logger", redactCaddy, "caddy.UnbufferDefaultLogger(redactedLogger(logger))", "caddy.UnbufferDefaultLogger(logger)", atRedaction},
	{"logs: the log of errors", redactCaddy, `"errorLogger", `, "", atRedaction},
	{"logs: Go's package log", redactCaddy, "\tredactStandardLog()\n\treturn nil", "\treturn nil", atRedaction},
	{"logs: fields of a logger", redaction, "c.Core.With(redactedFields(fields))", "c.Core.With(fields)", atRedaction},
	{"logs: fields of a line", redaction, "c.to.Write(redactedFields(fields)...)", "c.to.Write(fields...)", atRedaction},
	{"logs: messages", redaction, "c.to.Entry = redactedEntry(e)", "c.to.Entry = e", atRedaction},
	{"logs: levels of a tee", redaction, "checkedCore{c, checked}", "c", atRedaction},
	{"logs: reflected values", redaction, "value, err := redactedValue(e.rules, value)\n\tif err != nil {\n\t\treturn err\n\t}\n\treturn e.ObjectEncoder", "var err error\n\tif err != nil {\n\t\treturn err\n\t}\n\treturn e.ObjectEncoder", atRedaction},
	{"logs: names of values", redaction, "text := rules.Text(name)", "text := name", atRedaction},
	{"logs: Caddy's arrays keep their type", redaction, "list, ok := value.(caddyhttp.LoggableStringArray)", "list, ok := value.(caddyhttp.LoggableStringArray)\n\tok = false", atRedaction},
	{"logs: a bundle that comes later", "caddymodule/guard.go", "\tsecrets.with(b.Policy)\n", "", atRedaction},
	{"logs: lines of the filter", "wasmfilter/internal/plugin/log.go", "redact.Default.Text(s)", `s + redact.Default.Text("")`, inFilter},
}
