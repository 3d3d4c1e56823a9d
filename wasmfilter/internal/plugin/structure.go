package plugin

import (
	"encoding/json"
	"errors"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// structure gives the JSON of a google.protobuf.Struct. Envoy's documentation says
// that a Struct arrives as JSON; Envoy 1.40 hands it on as it is encoded. ok is
// false for anything else.
//
// The decoder is here because the whole of the library would make the filter a
// quarter larger.
func structure(raw []byte) (asJSON []byte, ok bool) {
	v, err := readStruct(raw, 0)
	if err != nil || len(v) == 0 {
		return nil, false
	}
	asJSON, err = json.Marshal(v)
	return asJSON, err == nil
}

var errStruct = errors.New("it is no google.protobuf.Struct")

// maxDepth is how deep a Struct may be nested.
const maxDepth = 16

// fields calls use with every field of a message: its number, and its bytes or
// its number.
func fields(b []byte, use func(number protowire.Number, bytes []byte, value uint64) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errStruct
		}
		b = b[n:]
		var bytes []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(b)
		default:
			return errStruct
		}
		if n < 0 {
			return errStruct
		}
		b = b[n:]
		if err := use(number, bytes, value); err != nil {
			return err
		}
	}
	return nil
}

func readStruct(b []byte, depth int) (map[string]any, error) {
	out := make(map[string]any)
	if depth > maxDepth {
		return nil, errStruct
	}
	err := fields(b, func(number protowire.Number, entry []byte, _ uint64) error {
		var name string
		var value any
		seen := 0
		if err := fields(entry, func(number protowire.Number, part []byte, _ uint64) (err error) {
			seen++
			switch number {
			case 1:
				name = string(part)
			case 2:
				value, err = readValue(part, depth+1)
			default:
				err = errStruct
			}
			return err
		}); err != nil {
			return err
		}
		if _, twice := out[name]; number != 1 || seen != 2 || twice || !utf8.ValidString(name) {
			return errStruct
		}
		out[name] = value
		return nil
	})
	return out, err
}

func readValue(b []byte, depth int) (out any, err error) {
	if depth > maxDepth {
		return nil, errStruct
	}
	err = fields(b, func(number protowire.Number, bytes []byte, value uint64) (err error) {
		switch number {
		case 1:
			out = nil
		case 2:
			out = math.Float64frombits(value)
		case 3:
			if out = string(bytes); !utf8.Valid(bytes) {
				err = errStruct
			}
		case 4:
			out = value != 0
		case 5:
			out, err = readStruct(bytes, depth)
		case 6:
			list := []any{}
			err = fields(bytes, func(_ protowire.Number, entry []byte, _ uint64) error {
				v, err := readValue(entry, depth+1)
				list = append(list, v)
				return err
			})
			out = list
		default:
			err = errStruct
		}
		return err
	})
	return out, err
}
