package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
)

func grammar(t testing.TB, imported bool) *Grammar {
	t.Helper()
	g, err := NewGrammar([]string{"sk", "pk", "rk"}, []string{"live", "test"}, imported)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func generate(t testing.TB) string {
	t.Helper()
	s, err := Generate("sk", "live")
	if err != nil {
		t.Fatal(err)
	}
	return s.Reveal()
}

// R45, R80: keys come from the system's random source, with a checksum.
func TestGenerated(t *testing.T) {
	g := grammar(t, false)
	seen := map[string]bool{}
	for range 1000 {
		key := generate(t)
		if seen[key] || len(key) != 8+38 {
			t.Fatalf("a key was made twice or has %d bytes", len(key))
		}
		seen[key] = true
		if kind, env, ok := g.Parse(key); !ok || kind != 0 || env != 0 {
			t.Fatal("a generated key does not parse")
		}
	}
}

// The checksum of a fixed key, computed with another implementation
// (Python: zlib.crc32), pins the format for ever.
func TestChecksumVector(t *testing.T) {
	const key = "sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV"
	if got := checksum(key); got != "28hqg7" {
		t.Errorf("checksum of %s is %s", key, got)
	}
}

// A key of any policy is told by its checksum.
func TestChecksummed(t *testing.T) {
	key := generate(t)
	for text, want := range map[string]bool{
		key: true, "Bearer " + key: false, key[:len(key)-1]: false, key + "0": false, "": false, "28hqg7": false,
		"sk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV28hqg7": true,
	} {
		if got := Checksummed(text); got != want {
			t.Errorf("%d bytes: %v", len(text), got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	key := generate(t)
	flip := func(i int) string {
		c := byte('A')
		if key[i] == c {
			c = 'B'
		}
		return key[:i] + string(c) + key[i+1:]
	}
	tests := map[string]string{
		"empty":               "",
		"prefix only":         "sk",
		"no environment":      "sk_",
		"no body":             "sk_live_",
		"unknown kind":        "xk" + key[2:],
		"unknown environment": "sk_prod" + key[7:],
		"upper-case kind":     "SK" + key[2:],
		"short":               key[:len(key)-1],
		"long":                key + "A",
		"very long":           key + strings.Repeat("A", 1<<16),
		"space before":        " " + key,
		"space after":         key + " ",
		"tab inside":          key[:20] + "\t" + key[21:],
		"comma":               key + "," + key,
		"non-ASCII":           key[:len(key)-2] + "é",
		"NUL":                 key[:len(key)-1] + "\x00",
		"underscore in body":  key[:20] + "_" + key[21:],
	}
	for i := 8; i < len(key); i++ {
		tests[fmt.Sprintf("character %d changed", i)] = flip(i)
	}
	g := grammar(t, false)
	for name, in := range tests {
		if _, _, ok := g.Parse(in); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestImported(t *testing.T) {
	g := grammar(t, true)
	for _, tt := range []struct {
		n  int
		ok bool
	}{{19, false}, {20, true}, {38, true}, {256, true}, {257, false}} {
		if _, _, ok := g.Parse("sk_test_" + strings.Repeat("z", tt.n)); ok != tt.ok {
			t.Errorf("a body of %d characters: %v", tt.n, ok)
		}
	}
	for _, c := range "-_. +/=\x00é" {
		if _, _, ok := g.Parse("sk_test_" + strings.Repeat("z", 20) + string(c)); ok {
			t.Errorf("a body with %q is accepted", c)
		}
	}
}

func TestGrammarRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ prefixes, envs []string }{
		"too long together": {[]string{"restricted"}, []string{"sandbox"}},
		"upper case":        {[]string{"SK"}, []string{"live"}},
		"underscore":        {[]string{"s_k"}, []string{"live"}},
		"empty":             {[]string{""}, []string{"live"}},
		"twice":             {[]string{"sk", "sk"}, []string{"live"}},
		"environment twice": {[]string{"sk"}, []string{"live", "live"}},
	} {
		if _, err := NewGrammar(tt.prefixes, tt.envs, false); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// R29: a key anywhere in a URL or cookie, encoded or not, right or mistyped.
func TestWithin(t *testing.T) {
	g, key := grammar(t, false), generate(t)
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"alone", key, true},
		{"mistyped", key[:len(key)-1] + "!", false},
		{"wrong checksum", key[:len(key)-6] + "000000", true},
		{"query value", "a=b&key=" + key + "&c=d", true},
		{"semicolon", "a=b;key=" + key, true},
		{"after an underscore", "x_" + key, true},
		{"after a body character", "x" + key, false},
		{"before a body character", key + "A", false},
		{"before a dot", key + ".json", true},
		{"one percent-encoded byte", "%73" + key[1:], true},
		{"all percent-encoded", percent(key), true},
		{"lower-case escapes", strings.ToLower(percent("sk_")) + key[3:], true},
		{"twice encoded is not once decoded", "%2573" + key[1:], false},
		{"broken escape before", "%zz" + key, false},
		{"escape cut short", key + "%7", true},
		{"second of two", "sk_live_short/" + key, true},
		{"key ID", "rk_" + RandomText(16), false},
		{"no key", "sk_live_", false},
		{"empty", "", false},
	} {
		if got := g.WithinEncoded(tt.in); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// headers are lines, by canonical name.
type headers map[string][]string

func (h headers) lines() (out []Header) {
	for name, values := range h {
		for _, v := range values {
			out = append(out, Header{name, v})
		}
	}
	return out
}

// R26, R28: exactly one line across all sources, in one grammar.
func TestFind(t *testing.T) {
	sources := []Source{{Header: "Authorization", Scheme: "Bearer"}, {Header: "X-Api-Key"}}
	tests := []struct {
		name  string
		h     headers
		value string
		lines int
	}{
		{"none", headers{}, "", 0},
		{"bearer", headers{"Authorization": {"Bearer k"}}, "k", 1},
		{"scheme in another case", headers{"Authorization": {"bEARER k"}}, "k", 1},
		{"plain header", headers{"X-Api-Key": {"k"}}, "k", 1},
		{"no scheme", headers{"Authorization": {"k"}}, "", 1},
		{"scheme only", headers{"Authorization": {"Bearer"}}, "", 1},
		{"scheme and space only", headers{"Authorization": {"Bearer "}}, "", 1},
		{"tab", headers{"Authorization": {"Bearer\tk"}}, "", 1},
		{"other scheme", headers{"Authorization": {"Basic k"}}, "", 1},
		{"Kelvin sign is no k", headers{"Authorization": {"to\u212aen k"}}, "", 1},
		{"empty line", headers{"X-Api-Key": {""}}, "", 1},
		{"two equal lines", headers{"X-Api-Key": {"k", "k"}}, "", 2},
		{"two sources", headers{"Authorization": {"Bearer k"}, "X-Api-Key": {"k"}}, "", 2},
		{"other scheme beside a key", headers{"Authorization": {"Basic k"}, "X-Api-Key": {"k"}}, "", 2},
		{"two lines joined", headers{"Authorization": {"Bearer k,Bearer l"}}, "", 2},
		{"three lines joined", headers{"Authorization": {"Bearer k, Basic l,bearer m"}}, "", 3},
		{"the scheme after a comma, and a tab", headers{"Authorization": {"Basic k, Bearer\tl"}}, "", 2},
		{"the scheme after a comma", headers{"Authorization": {"Basic k, Bearer l"}}, "", 2},
		{"a key and a comma", headers{"Authorization": {"Bearer k,"}}, "", 2},
		{"commas of another scheme", headers{"Authorization": {`Digest a="b", c="d"`}}, "", 1},
		{"comma without a scheme", headers{"X-Api-Key": {"k,l"}}, "", 2},
		{"the scheme and a comma", headers{"Authorization": {"Bearer,x"}}, "", 2},
		{"another scheme that begins alike", headers{"Authorization": {"Bearers a, b"}}, "", 1},
		{"empty line beside a key", headers{"Authorization": {""}, "X-Api-Key": {"k"}}, "", 2},
	}
	for _, tt := range tests {
		value, lines, ok := Find(sources, tt.h.lines())
		if value != tt.value || lines != tt.lines || ok != (tt.value != "") {
			t.Errorf("%s: %q, %d lines, %v", tt.name, value, lines, ok)
		}
	}
	// A second space is part of the value, where the grammar refuses it.
	if v, _, ok := Find(sources, headers{"Authorization": {"Bearer  k"}}.lines()); !ok || v != " k" {
		t.Errorf("two spaces: %q, %v", v, ok)
	}
}

// R74: no formatting path shows the key.
func TestSecretRedacts(t *testing.T) {
	key := generate(t)
	s := Secret{key}
	j, err := json.Marshal(map[string]any{"a": s, "b": &s, "c": []Secret{s}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "a", s, "b", &s, "c", []Secret{s})
	out := []string{string(j), log.String(), errors.Join(fmt.Errorf("%v", s)).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, struct{ S Secret }{s}))
	}
	for _, o := range out {
		if strings.Contains(o, key) || strings.Contains(o, key[8:20]) || strings.Contains(o, fmt.Sprintf("%x", key)) {
			t.Errorf("the key shows in %s", o)
		}
	}
	if s.Reveal() != key || s.Hint() != key[len(key)-4:] {
		t.Error("the key is lost")
	}
}

func FuzzGrammar(f *testing.F) {
	g := grammar(f, false)
	scanner := regexp.MustCompile(g.Regexp())
	key := generate(f)
	for _, s := range []string{key, "x" + key, key + "&" + key, "sk_live_", "a=%73" + key[1:], "sk_sk_live_" + key[8:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, ok := g.Parse(s); ok && !g.Within(s) {
			t.Error("an accepted key is not found by Within")
		}
		if g.Within(s) != scanner.MatchString(s) {
			t.Errorf("Within and Regexp disagree on %q", s)
		}
		if g.Within(s) && !g.WithinEncoded(s) {
			t.Error("decoding hides a key")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	g, key := grammar(b, false), generate(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := g.Parse(key); !ok {
			b.Fatal("refused")
		}
	}
}

// R45, R80: every character of a key is as likely as any other.
func TestRandomTextIsEven(t *testing.T) {
	const each = 10000
	text := RandomText(each * len(Alphabet))
	for _, c := range Alphabet {
		if n := strings.Count(text, string(c)); n < each*92/100 || n > each*108/100 { // eight standard deviations
			t.Errorf("%c is there %d times, not about %d", c, n, each)
		}
	}
}
