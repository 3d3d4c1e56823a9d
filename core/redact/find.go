package redact

import (
	"bytes"
	"strings"

	"github.com/keystile/keystile/core/internal/ascii"
)

const (
	// shortest is how long a secret is at least.
	shortest = 12
	// keyBody is how long the body of an issued key is.
	keyBody = 38
	// looseBody is the shortest body behind names that no policy knows: a key that was
	// cut or mistyped is nearly as good as the key, and bodies that another system made
	// may be this short.
	looseBody = 20
	// knownBody is the shortest behind names that a policy knows, in any case: hosts and
	// names of headers arrive in lower case.
	knownBody = 8
	// token is how the JSON object begins that each part but the last of a customer token
	// is, in base64, and tokenPart the shortest part.
	token     = "eyJ"
	tokenPart = 8
	// private and key, with + between them, are how the private key of every signer and
	// publisher begins, in any case.
	private, key = "PRIVATE", "KEY+"
)

// encoded finds secrets in s, as they are and in base64 or hexadecimal text.
func (r *Rules) encoded(found []span, s string) []span {
	found = r.plain(found, s)
	for from := 0; from < len(s); {
		if base64Digit[s[from]] < 0 {
			from++
			continue
		}
		to := from
		for to < len(s) && base64Digit[s[to]] >= 0 {
			to++
		}
		if to-from >= shortest*8/6 {
			found = r.within(found, s, from, to, 6, &base64Digit)
			found = r.withinHex(found, s, from, to)
		}
		from = to
	}
	return found
}

// withinHex looks into each run of hexadecimal digits between from and to.
func (r *Rules) withinHex(found []span, s string, from, to int) []span {
	for from < to {
		end := from
		for end < to && hexDigit[s[end]] >= 0 {
			end++
		}
		if end-from >= shortest*8/4 {
			found = r.within(found, s, from, end, 4, &hexDigit)
		}
		from = end + 1
	}
	return found
}

// within decodes the digits of s between from and to, of so many bits each, and finds
// what is secret in that. What was encoded may begin at any of them, as behind a word
// that is made of the same digits.
func (r *Rules) within(found []span, s string, from, to, bits int, digits *[256]int8) []span {
	var space [512]byte
	for offset := range 8 / (bits & -bits) { // then the digits and the bytes begin together again
		decoded, rest, have := space[:0], 0, 0
		for i := from + offset; i < to; i++ {
			rest, have = rest<<bits|int(digits[s[i]]), have+bits
			if have >= 8 {
				have -= 8
				decoded = append(decoded, byte(rest>>have))
				rest &= 1<<have - 1
			}
		}
		if bytes.IndexByte(decoded, '_') < 0 && bytes.IndexByte(decoded, '+') < 0 && !bytes.Contains(decoded, []byte(token)) {
			continue
		}
		for _, f := range r.plain(nil, string(decoded)) {
			begin := from + offset
			found = append(found, span{begin + f.from*8/bits, begin + (f.to*8+bits-1)/bits})
		}
	}
	return found
}

// plain finds secrets that stand in s as they are.
func (r *Rules) plain(found []span, s string) []span {
	for from := 0; ; {
		i := strings.Index(s[from:], token)
		if i < 0 {
			break
		}
		begin := from + i
		end, is := customerToken(s, begin)
		if is {
			found = append(found, span{begin, end})
		}
		from = end
	}
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '_')
		if i < 0 {
			break
		}
		from += i + 1
		if f, ok := r.key(s, from); ok {
			found = append(found, f)
			from = f.to
		}
	}
	for from := 0; ; {
		i := strings.IndexByte(s[from:], '+')
		if i < 0 {
			return found
		}
		from += i + 1
		begin := from - len(private) - 1
		if begin < 0 || !ascii.EqualFold(s[begin:from-1], private) || len(s) < from+len(key) || !ascii.EqualFold(s[from:from+len(key)], key) {
			continue
		}
		from += len(key)
		for from < len(s) && (ascii.IsAlnum(s[from]) || strings.IndexByte("+/=-_.:@~*", s[from]) >= 0) {
			from++
		}
		found = append(found, span{begin, from})
	}
}

// customerToken says whether a JSON Web Token begins at begin, and where that ends, or
// else from where on there may be one. One that is cut gives its claims away all the same.
func customerToken(s string, begin int) (end int, is bool) {
	parts := 0
	for end = begin; ; end++ {
		part := end
		for end < len(s) && (ascii.IsAlnum(s[end]) || s[end] == '_' || s[end] == '-') {
			end++
		}
		if end-part >= tokenPart {
			parts++
		}
		if end == len(s) || s[end] != '.' {
			return end, parts >= 2
		}
	}
}

// key is what looks like an API key whose body begins at body, behind an underscore.
func (r *Rules) key(s string, body int) (span, bool) {
	for _, h := range r.heads {
		if begin := body - len(h); begin >= 0 && ascii.EqualFold(s[begin:body], h) {
			end := body
			for end < len(s) && (ascii.IsAlnum(s[end]) || s[end] == '_' || s[end] == '-') {
				end++
			}
			if end-body >= knownBody {
				return span{begin, end}, true
			}
		}
	}
	end, telling := body, false
	for end < len(s) && ascii.IsAlnum(s[end]) {
		telling = telling || s[end] < 'a'
		end++
	}
	if n := end - body; n < looseBody || n < keyBody && !telling { // a word of a name, as programs have them
		return span{}, false
	}
	environment := nameBefore(s, body-1)
	if environment == body-1 || environment < 2 || s[environment-1] != '_' {
		return span{}, false
	}
	prefix := nameBefore(s, environment-1)
	return span{prefix, end}, prefix < environment-1
}

// nameBefore is where the lower-case letters and digits that end at end begin.
func nameBefore(s string, end int) int {
	for end > 0 && ascii.IsAlnum(s[end-1]) && !ascii.IsUpper(s[end-1]) {
		end--
	}
	return end
}

// base64Digit and hexDigit are what each byte stands for, or -1: base64 in both of its
// alphabets, hexadecimal in both cases.
var base64Digit, hexDigit = func() (b, h [256]int8) {
	for i := range b {
		b[i], h[i] = -1, -1
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		b[c] = int8(i)
	}
	b['-'], b['_'] = b['+'], b['/']
	for i, c := range []byte("0123456789abcdef") {
		h[c] = int8(i)
	}
	for i, c := range []byte("ABCDEF") {
		h[c] = int8(10 + i)
	}
	return b, h
}()
