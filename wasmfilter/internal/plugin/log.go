package plugin

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/keystile/keystile/core/redact"
)

// maxText is how many bytes of one text are logged: some come from clients and
// origins (R75).
const maxText = 512

// Line is a line of the log: what happens, and a JSON object of fields, given as
// names and values in turn. Whatever is in them, it stays one line of printable text.
func Line(what string, fields ...any) string {
	b := append(make([]byte, 0, 256), "keystile: "+what+" {"...)
	for i := 0; i+1 < len(fields); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, fmt.Sprint(fields[i]))
		b = append(b, ':')
		b = appendValue(b, fields[i+1])
	}
	return string(append(b, '}'))
}

func appendValue(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendText(b, v)
	case int, int64, uint32, uint64:
		return fmt.Append(b, v)
	}
	return appendText(b, fmt.Sprint(value))
}

// appendText appends a JSON string, without keys: an error may quote what it was given
// (R74). encoding/json would leave what a terminal obeys:
// DEL, C1 controls, text that runs the other way.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	for i, r := range redact.Default.Text(s) {
		if i >= maxText {
			b = append(b, "…"...)
			break
		}
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case strconv.IsPrint(r):
			b = utf8.AppendRune(b, r)
		default:
			b = appendEscape(b, r)
		}
	}
	return append(b, '"')
}

func appendEscape(b []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(b, `\u%04x`, r)
}
