package plugin

import (
	"encoding/json"
	"fmt"
)

// Line is a line of the log: what happened, and behind it one JSON object of its
// fields, names and values in turn. Whatever is in a value, control bytes too,
// cannot end the line or the object.
func Line(what string, fields ...any) string {
	b := append([]byte("keystile: "+what), " {"...)
	for i := 0; i+1 < len(fields); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, asJSON(fields[i])...), ':')
		b = append(b, asJSON(fields[i+1])...)
	}
	return string(append(b, '}'))
}

// asJSON is a number as it is, and anything else as text.
func asJSON(v any) []byte {
	switch v.(type) {
	case int, int64, uint64:
	default:
		v = fmt.Sprint(v)
	}
	b, _ := json.Marshal(v) // numbers and text cannot fail
	return b
}
