package main

// Where tests are.
const (
	tables   = "./policies"
	inCore   = "./core"
	inPolicy = "./core/policy"
)

const (
	verifier   = "core/verifier.go"
	lookup     = "core/lookup.go"
	shape      = "core/shape.go"
	answer     = "core/answer.go"
	path       = "core/policy/path.go"
	route      = "core/policy/route.go"
	host       = "core/policy/host.go"
	field      = "core/policy/field.go"
	forward    = "core/forward.go"
	fold       = "core/internal/ascii/ascii.go"
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
	inBundle   = "./core/bundle"
	inDisk     = "./caddymodule/disk"
)

var mutants = []mutant{
	// 1 transport
	{"plaintext", verifier, "if !c.TLS && !c.terminated() {", "if false {", tables},
	{"early data", verifier, "if c.EarlyData || c.has(", "if c.has(", tables},
	{"line of Early-Data", verifier, `if c.EarlyData || c.has("Early-Data") {`, "if c.EarlyData {", tables},
	{"terminators listed", verifier, "if !c.MayTerminate(c.Peer) {", "if !c.MayTerminate(c.Peer) && false {", inCore},
	{"terminator says https", verifier, `return n == 1 && (proto == "https" || proto == "wss")`, `return n < 99 && proto != "x"`, inCore},
	{"terminator says it once", verifier, "return n == 1 && (", "return n >= 1 && (", inCore},
	{"terminator says wss", verifier, ` || proto == "wss")`, ")", inCore},
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
	{"another Host line", verifier, "!ok || other != host {\n\t\t\t\t\treturn policy.Malformed", "!ok && other == host {\n\t\t\t\t\treturn policy.Malformed", tables},
	{"Host lines looked at", verifier, `another := c.has("Host")`, "another := false", tables},
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
	{"case of the path", route, "if fold && !m.read(&rt.root, &as, path, true, method) {", "if false {", tables},
	{"escapes of the path", route, "\tif escapes {\n\t\tothers = append(others, plain)\n\t}\n", "", tables},
	{"case of the other readings", route, " || fold && !m.read(&rt.root, &as, other, true, method) {", " {", tables},
	{"slash and escapes at once", route, "others = append(others, plain.withoutSlash())", "_ = plain", tables},
	{"readings for every method", route, "if p != nil && (as[i] == nil || ", "if p != nil && Method(i) == method && (as[i] == nil || ", tables},
	{"paths with escapes are read again", route, "path.has&(classUpper|classOther) == 0", "path.has&classUpper == 0", tables},
	{"paths with capitals are read again", route, "path.has&(classUpper|classOther) == 0", "path.has&classOther == 0", tables},
	{"colon may be escaped", path, "const optional = \"!$&'()*+,=:@\"", "const optional = \"!$&'()*+,=@\"", tables},
	{"at sign may be escaped", path, "const optional = \"!$&'()*+,=:@\"", "const optional = \"!$&'()*+,=:\"", tables},
	{"trailing slash", route, "if others = append(others, path.withoutSlash()); escapes {", "if escapes {", tables},
	{"preflight's Origin", verifier, `!c.has("Origin") || `, "", tables},
	{"preflight's method", verifier, ` || !c.has("Access-Control-Request-Method") {`, " {", tables},
	{"preflight opted in", route, "if pt.route.CORS && pt.matches(path) {", "if pt.matches(path) {", tables},

	// 4 credential
	{"key in the path", verifier, "c.path.MayHoldKey() && g.WithinEncoded(c.Path) || ", "", tables},
	{"key in the query", verifier, ` || c.Query != "" && g.WithinEncoded(c.Query) {`, " {", tables},
	{"key in a cookie", verifier, `l.Is("Cookie") && g.WithinEncoded(l.Value) {`, `l.Is("Cookie") && false {`, tables},
	{"encoded key", request, "return g.Within(ascii.Unescape(s))", "return false", tables},
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
	{"token missing", verifier, "if n == 0 {\n\t\treturn policy.TokenMissing\n\t}", "if n == 0 {\n\t\treturn policy.OK\n\t}", tables},
	{"token twice", verifier, "if n > 1 || !ok {", "if !ok {", tables},
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
	{"endpoint", verifier, "case c.entry.restricted && !c.endpointAllowed():", "case false:", tables},
	{"endpoint's method", route, "return e.methods.Has(m) && e.pattern.matches(path)", "return e.pattern.matches(path)", tables},
	{"tenant", verifier, `(key.Tenant == "" || !c.match.ParamIs(route.TenantParam, key.Tenant)):`, `key.Tenant == "no one's":`, tables},
	{"tenant of a key without one", verifier, `(key.Tenant == "" || !c.match`, `key.Tenant != "" && (!c.match`, tables},
	{"tenant decoded", route, "if unescape(m.readings[i].raw(name)) != want {", "if m.readings[i].raw(name) != want {", tables},
	{"scope", verifier, "case !c.scopeAllowed(route, p.Kinds[c.kind].Scoped):", "case false:", tables},
	{"unrestricted", verifier, "if route.Unrestricted && c.entry.restricted {", "if false {", tables},
	{"own key", verifier, "return c.match.ParamIs(demand.OwnKey, c.entry.key.ID)", "return true", tables},
	{"scopes of each reading", route, "for i := range m.count {\n\t\tr := &m.readings[i]", "for i := range 1 {\n\t\tr := &m.readings[i]", tables},
	{"scopes of the reading without case", route, "if r.fold {", "if false {", tables},
	{"a demand that nothing meets", verifier, "return len(demand.Scopes) > 0", "return true", tables},

	// what goes on, and what is answered
	{"identity headers", field, "\tif ascii.HasFoldedPrefix(name, identityPrefix) {\n\t\treturn FieldRemoved\n\t}\n", "", tables},
	{"renamed identity headers", field, "f.add(*n, FieldRemoved)", "_ = n", tables},
	{"folding table", fold, "t[i] = '-'", "t[i] = byte(i)", tables},
	{"override headers", field, "f.add(n, FieldOverride)", "_ = n", tables},
	{"override of another method", forward, "if l.Value != c.Method {", "if false {", tables},
	{"source headers", field, "f.add(src.Header, FieldRemoved)", "_ = src", tables},
	{"the token's header", field, "f.add(p.Token.Source.Header, FieldToken)", "_ = p", tables},
	{"customer token elsewhere", forward, "return value, d.keepToken && ", "return value, ", tables},
	{"aliases of the token's header", forward, "d.keepToken && d.policy.IsToken(name)", "d.keepToken", tables},
	{"Upgrade", field, "\tf.add(\"Upgrade\", FieldUpgrade)\n", "", tables},
	{"Upgrade of all but WebSocket", forward, "return value, d.webSocket", "return value, true", tables},
	{"HTTP2-Settings", field, "\tf.add(\"HTTP2-Settings\", FieldRemoved)\n", "", tables},
	{"Connection", field, "\tf.add(\"Connection\", FieldConnection)\n", "", tables},
	{"Connection's options of the edge", field, "\t\tdefault:\n\t\t\tdropped = true\n\t\t\tcontinue\n", "", tables},
	{"Connection's option Upgrade", field, "\t\t\tif keepUpgrade {\n\t\t\t\tbreak\n\t\t\t}\n\t\t\tdropped = true\n\t\t\tcontinue\n", "", tables},
	{"Connection's option Upgrade of a WebSocket", field, "if keepUpgrade {", "if false {", inPolicy},
	{"WebSocket goes on", forward, "c.decision.webSocket = named", "c.decision.webSocket = false", tables},
	{"WebSocket in one line", forward, "upgrades > 1 || ", "", tables},
	{"WebSocket alone", forward, "alone = ascii.EqualFold(l.Value, webSocket)", "alone = true", tables},
	{"WebSocket with a version", forward, `protocol, _, _ := strings.Cut(option, "/")`, "protocol := option", tables},
	{"WebSocket in capitals", forward, `ascii.EqualFold(strings.Trim(protocol, " \t"), webSocket)`, `strings.Trim(protocol, " \t") == webSocket`, tables},
	{"WebSocket by HTTP/1.1", forward, "return c.HTTP11 && ", "return ", tables},
	{"WebSocket by GET", forward, `c.Method == "GET" && `, "", tables},
	{"WebSocket without a body", forward, "!c.Body && ", "", tables},
	{"Sec-WebSocket-Key", forward, "keys == 1", "keys <= 1", tables},
	{"Sec-WebSocket-Key twice", forward, "keys == 1", "keys >= 1", tables},
	{"Sec-WebSocket-Version", forward, "versions == 1", "versions <= 1", tables},
	{"Sec-WebSocket-Version twice", forward, "versions == 1", "versions >= 1", tables},
	{"Host that holds the key", forward, "if credential.Holds(c.Authority, c.key) {", "if false {", tables},
	{"key under another name", forward, "d.elsewhere && credential.Holds(value, d.key) || ", "", tables},
	{"key where a proxy writes", forward, "if policy.FramesMessage(l.Name) {", "if false {", tables},
	{"names that frame a message", field, `case "forwarded", "via", "x-real-ip", "host", "te", "trailer", "expect":`, `case "":`, tables},
	{"X-Real-Ip", field, `"x-real-ip", "host"`, `"host"`, tables},
	{"X-Forwarded-…", field, `"x-forwarded-", `, "", tables},
	{"X-Envoy-…", field, `"x-envoy-", `, "", tables},
	{"Content-…", field, `"content-", `, "", tables},
	{"Sec-WebSocket-…", field, `, "sec-websocket-"`, "", tables},
	{"aliases of names that frame a message", field, "switch folded := ascii.FoldName(name); folded {", "switch folded := strings.ToLower(name); folded {", tables},
	{"key under another name, encoded", request, "if strings.IndexByte(value, '%') >= 0 && strings.Contains(ascii.Unescape(value), key) {", "if false {", tables},
	{"key under another name, in Basic", request, "return err == nil && strings.Contains(string(decoded), key)", "return err == nil && len(decoded) < 0", tables},
	{"cookie that holds a key", forward, ` || d.Reason == policy.InCookie && ascii.EqualFold(name, "Cookie") {`, " {", inCore},
	{"what a denial keeps", answer, "d.keepToken, d.webSocket = false, false", "", inCore},
	{"trailers", forward, " || d.policy.Field(name) != policy.FieldOther {", " {", tables},
	{"key in a trailer", forward, "!credential.Holds(value, d.key) && ", "", tables},
	{"key as the name of a trailer", forward, " && !strings.Contains(strings.ToLower(name), strings.ToLower(d.key))", "", tables},
	{"CORS of a denial", answer, "if route != nil && route.CORS {", "if false {", tables},
	{"gRPC", answer, "if isGRPC(lines) {", "if false {", tables},
	{"no gRPC over plain HTTP", answer, "if reason == policy.Plaintext {", "if false {", tables},
	{"not to be cached", answer, "\n\t\tHeader{Name: \"Cache-Control\", Value: \"no-store\"},", "", tables},

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
}
