// Package redact takes API keys, customer tokens and private keys out of texts that are
// about to be logged, and nothing else: the rest of a line stays useful.
//
// [Rules] know what to take out. They begin as [Default], which knows how an API key
// looks in any policy, and learn with [Rules.With] what a policy names. A secret is found
// as it is, percent-encoded once or twice, and inside of base64 or hexadecimal text.
package redact

import (
	"slices"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
	"github.com/keystile/keystile/core/policy"
)

// Mark stands where a secret was.
const Mark = "REDACTED"

// Rules say what is secret. They are immutable, and only grow: a key that was once
// accepted under a name may still be sent under it after the policy has changed.
type Rules struct {
	names []string // folded, of header fields that hold nothing but credentials
	heads []string // what keys begin with: "sk_live_"
}

// Default is what is secret whatever the policies say.
var Default = &Rules{names: []string{"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"}}

// With are the rules with what p names: the headers that carry its API keys and
// customer tokens, and how its keys begin.
func (r *Rules) With(p *policy.Policy) *Rules {
	with := &Rules{names: slices.Clone(r.names), heads: slices.Clone(r.heads)}
	for _, s := range p.Sources {
		with.names = add(with.names, ascii.FoldName(s.Header))
	}
	if p.CustomerToken != nil {
		with.names = add(with.names, ascii.FoldName(p.CustomerToken.Source.Header))
	}
	for _, k := range p.Kinds {
		for _, e := range p.Environments {
			with.heads = add(with.heads, k.Prefix+"_"+e+"_")
		}
	}
	return with
}

func add(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// Hides says whether all that is logged under name is secret: it is a header field
// that carries credentials, or an alias of one.
func (r *Rules) Hides(name string) bool {
	return slices.ContainsFunc(r.names, func(n string) bool { return len(n) == len(name) && ascii.HasFoldedPrefix(name, n) })
}

// Text is s with [Mark] in place of each secret. Without any it is s itself.
func (r *Rules) Text(s string) string {
	if len(s) < shortest {
		return s
	}
	found := r.encoded(nil, s)
	text, at := s, []int(nil)
	for range 2 {
		if strings.IndexByte(text, '%') < 0 {
			break
		}
		text, at = unescape(text, at)
		for _, f := range r.encoded(nil, text) {
			found = append(found, span{at[f.from], at[f.to]})
		}
	}
	if len(found) == 0 {
		return s
	}
	return replace(s, found)
}

// span is the part of a text from one index up to another.
type span struct{ from, to int }

// replace puts the mark in place of each span; those that touch are one.
func replace(s string, spans []span) string {
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	end := 0
	for i, f := range spans {
		if i == 0 || f.from > end {
			b.WriteString(s[end:f.from])
			b.WriteString(Mark)
		}
		end = max(end, f.to)
	}
	b.WriteString(s[end:])
	return b.String()
}

// unescape is s after one percent-decoding, and where each byte of it, and its end,
// stood in the text in which s stood at the given places; nil is s itself.
func unescape(s string, places []int) (string, []int) {
	place := func(i int) int {
		if places == nil {
			return i
		}
		return places[i]
	}
	out, at := make([]byte, 0, len(s)), make([]int, 0, len(s)+1)
	for i := 0; i < len(s); i++ {
		c, from := s[i], i
		if c == '%' && i+2 < len(s) {
			if decoded, ok := ascii.Unhex(s[i+1], s[i+2]); ok {
				c, i = decoded, i+2
			}
		}
		out, at = append(out, c), append(at, place(from))
	}
	return string(out), append(at, place(len(s)))
}
