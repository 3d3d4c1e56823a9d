package shape

import (
	"strings"
	"testing"
)

func parsePath(t testing.TB, s string) *Path {
	t.Helper()
	p := new(Path)
	if !p.Parse(s) {
		t.Fatalf("path %q is not canonical", s)
	}
	return p
}

func TestDeepPath(t *testing.T) {
	deep := "/s0"
	for i := 1; i < 30; i++ {
		deep += "/s" + string(rune('a'+i%26))
	}
	p := parsePath(t, deep)
	want := strings.Split(deep[1:], "/")
	if p.Segments() != len(want) {
		t.Fatalf("%d segments", p.Segments())
	}
	for i, w := range want {
		if got := p.Segment(i); got != w {
			t.Errorf("segment %d is %q, not %q", i, got, w)
		}
	}
	slash := parsePath(t, deep+"/")
	if cut := slash.WithoutSlash(); !slash.EndsInSlash() || cut.Segments() != len(want) || cut.Segment(len(want)-1) != want[len(want)-1] {
		t.Error("the trailing slash of a deep path")
	}
}

// R9–R13: forms that are refused.
func TestCanonicalPath(t *testing.T) {
	for _, good := range []string{"/", "/a", "/a/", "/a.b/..c", "/a/...", "/a/.b", "/a%20b", "/a%7Bb", "/a%7bb", "/~x-._!$&'()*+,=:@"} {
		if !new(Path).Parse(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", "a", "*", "//", "/a//b", "/.", "/..", "/./a", "/../a", "/a/.", "/a/..", "/a/../b", "/a;b", "/a\\b", "/a b", "/a\tb", "/a#b",
		"/a?b", "/a\x00", "/é", "/%", "/%2", "/%zz", "/%2f", "/%2F", "/%5c", "/%2e", "/%2E%2e", "/%00", "/%1f", "/%7f", "/%80", "/%c3%a9",
		"/%25", "/%3b", "/%23", "/%3f", "/%61", "/%5A", "/%30", "/%2d", "/%5f", "/%7e", "/a\"b", "/a<b", "/a[b", "/a^b", "/a`b", "/a{b", "/a|b",
		"https://h/a", "/" + strings.Repeat("a", 1<<16),
	} {
		if new(Path).Parse(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// R22, R23.
func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"api.example.com": "api.example.com", "API.Example.COM": "api.example.com", "api.example.com.": "api.example.com",
		"api.example.com:443": "api.example.com", "api.example.com.:443": "api.example.com", "api.example.com:8443": "api.example.com:8443",
		"localhost": "localhost", "127.0.0.1": "127.0.0.1", "[::1]": "[::1]", "[::1]:443": "[::1]", "[2001:DB8::1]:80": "[2001:db8::1]:80",
		"": "", ".": "", "..": "", "a..b": "", ".a": "", "a,b": "", "a b": "", "user@a": "", "a%2eb": "", "a\x00": "", "é.com": "", "\u212a.com": "",
		"a:": "", "a:0": "", "a:65536": "", "a:443x": "", "a:-1": "", "a:+443": "", "a:0443": "", "a:99999999999": "", "[::1": "", "[fe80::1%25eth0]": "",
		"[127.0.0.1]": "", "[::1]x": "", "[]": "", strings.Repeat("a", 64) + ".com": "", strings.Repeat("a.", 127) + "a": "",
	} {
		got, ok := CanonicalHost(in)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("/a/%20/b")
	f.Fuzz(func(t *testing.T, s string) {
		var p Path
		if !p.Parse(s) {
			return
		}
		var again strings.Builder
		for i := range p.Segments() {
			again.WriteString("/" + p.Segment(i))
		}
		if again.String() != s {
			t.Errorf("%q is taken apart as %q", s, &again)
		}
	})
}

// R19, R21: a method is one exact word in upper case, and HEAD is GET.
func TestParseMethod(t *testing.T) {
	for m, name := range MethodNames {
		if got, known := ParseMethod(name); !known || got != Method(m) {
			t.Errorf("%s is %v, %v", name, got, known)
		}
	}
	if got, known := ParseMethod("HEAD"); !known || got != GET {
		t.Errorf("HEAD is %v, %v", got, known)
	}
	for _, bad := range []string{
		"", "get", "Get", "head", "PR!OP", "GET /x HTTP/1.1", "GET ", " GET", "GET\t", "GET\r\n", "GET,POST", "GETS", "GE",
		"TRACE", "CONNECT", "PROPFIND", "QUERY", "PRI", "*", "GET\x00", "\u0262ET",
	} {
		if m, known := ParseMethod(bad); known {
			t.Errorf("%q is taken for %v", bad, m)
		}
	}
}

// R13: a query has no fragment, and no byte that a URL cannot have.
func TestCanonicalQuery(t *testing.T) {
	for _, good := range []string{"", "a=b&c", "a=%23&b=%2F", "?/:@!$'()*+,;=~", "q={a}|b^c"} {
		if !CanonicalQuery(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"#", "a#b", "a=b#", " ", "a b", "a\x00", "a\r\nb", "a\x7f", "\u00e9", "\xff"} {
		if CanonicalQuery(bad) {
			t.Errorf("%q is accepted", bad)
		}
	}
}
