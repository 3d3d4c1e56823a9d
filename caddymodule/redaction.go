package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/redact"
)

// secrets are what logs of this process must not show. They learn every policy that
// comes into use, and forget none.
var secrets = newSecretRules()

type secretRules struct {
	current atomic.Pointer[redact.Rules]
	learn   sync.Mutex
}

func newSecretRules() *secretRules {
	s := new(secretRules)
	s.current.Store(redact.Default)
	return s
}

func (s *secretRules) with(p *policy.Policy) {
	s.learn.Lock()
	defer s.learn.Unlock()
	s.current.Store(s.current.Load().With(p))
}

// redacting is a logger's core whose lines have no secrets.
func redacting(core zapcore.Core) zapcore.Core {
	if _, done := core.(redactingCore); done {
		return core
	}
	return redactingCore{core}
}

// redactingCore hands on what is logged, without secrets: messages, stacks, and fields
// of whatever type. It stands before the encoder, so that it knows fields by their
// names, and every format, filter and sampling does its work as before.
type redactingCore struct{ zapcore.Core }

func (c redactingCore) With(fields []zapcore.Field) zapcore.Core {
	return redactingCore{c.Core.With(redactedFields(fields))}
}

// Check asks the core behind for its own list of those that take the line: a tee asks
// each of its logs, which differ in levels and names.
func (c redactingCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	checked := c.Core.Check(e, nil)
	if checked == nil {
		return to
	}
	checked.ErrorOutput = zapcore.AddSync(os.Stderr)
	return to.AddCore(e, checkedCore{c, checked})
}

func (c redactingCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return c.Core.Write(redactedEntry(e), redactedFields(fields))
}

// checkedCore writes one line to those that have said they take it.
type checkedCore struct {
	redactingCore
	to *zapcore.CheckedEntry
}

func (c checkedCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.to.Entry = redactedEntry(e)
	c.to.Write(redactedFields(fields)...)
	return nil
}

func redactedEntry(e zapcore.Entry) zapcore.Entry {
	r := secrets.current.Load()
	e.LoggerName, e.Message, e.Stack = r.Text(e.LoggerName), r.Text(e.Message), r.Text(e.Stack)
	return e
}

// redactedFields are the fields, as one that redacts them when it is encoded. Those
// that can hold no text stay as they are.
func redactedFields(fields []zapcore.Field) []zapcore.Field {
	for i := range fields {
		switch fields[i].Type {
		case zapcore.BoolType, zapcore.DurationType, zapcore.Float64Type, zapcore.Float32Type,
			zapcore.Int64Type, zapcore.Int32Type, zapcore.Int16Type, zapcore.Int8Type,
			zapcore.Uint64Type, zapcore.Uint32Type, zapcore.Uint16Type, zapcore.Uint8Type,
			zapcore.TimeType, zapcore.TimeFullType, zapcore.SkipType:
		default:
			return []zapcore.Field{zap.Inline(fieldList(fields))}
		}
	}
	return fields
}

type fieldList []zapcore.Field

func (l fieldList) MarshalLogObject(to zapcore.ObjectEncoder) error {
	enc := objectEncoder{to, secrets.current.Load()}
	for i := range l {
		l[i].AddTo(enc)
	}
	return nil
}

// objectEncoder redacts the texts of an object.
type objectEncoder struct {
	zapcore.ObjectEncoder
	rules *redact.Rules
}

func (e objectEncoder) AddString(name, value string) {
	if e.rules.Hides(name) {
		value = redact.Mark
	}
	e.ObjectEncoder.AddString(e.rules.Text(name), e.rules.Text(value))
}

func (e objectEncoder) AddByteString(name string, value []byte) {
	if e.rules.Hides(name) {
		value = []byte(redact.Mark)
	}
	e.ObjectEncoder.AddByteString(e.rules.Text(name), redactedBytes(e.rules, value))
}

func (e objectEncoder) AddBinary(name string, value []byte) {
	if e.rules.Hides(name) {
		value = []byte(redact.Mark)
	}
	e.ObjectEncoder.AddBinary(e.rules.Text(name), redactedBytes(e.rules, value))
}

func (e objectEncoder) AddReflected(name string, value any) error {
	if e.rules.Hides(name) {
		e.AddString(name, redact.Mark)
		return nil
	}
	value, err := redactedValue(e.rules, value)
	if err != nil {
		return err
	}
	return e.ObjectEncoder.AddReflected(e.rules.Text(name), value)
}

func (e objectEncoder) AddArray(name string, value zapcore.ArrayMarshaler) error {
	if e.rules.Hides(name) {
		value = caddyhttp.LoggableStringArray{redact.Mark}
	}
	return e.ObjectEncoder.AddArray(e.rules.Text(name), redactedArray(e.rules, value))
}

func (e objectEncoder) AddObject(name string, value zapcore.ObjectMarshaler) error {
	if e.rules.Hides(name) {
		e.AddString(name, redact.Mark)
		return nil
	}
	return e.ObjectEncoder.AddObject(e.rules.Text(name), redactedObject{value, e.rules})
}

func (e objectEncoder) OpenNamespace(name string) { e.ObjectEncoder.OpenNamespace(e.rules.Text(name)) }

type redactedObject struct {
	zapcore.ObjectMarshaler
	rules *redact.Rules
}

func (o redactedObject) MarshalLogObject(to zapcore.ObjectEncoder) error {
	return o.ObjectMarshaler.MarshalLogObject(objectEncoder{to, o.rules})
}

// redactedArray keeps the type of Caddy's arrays of strings: its log filters look for
// it.
func redactedArray(rules *redact.Rules, value zapcore.ArrayMarshaler) zapcore.ArrayMarshaler {
	list, ok := value.(caddyhttp.LoggableStringArray)
	if !ok {
		return zapcore.ArrayMarshalerFunc(func(to zapcore.ArrayEncoder) error {
			return value.MarshalLogArray(arrayEncoder{to, rules})
		})
	}
	if !slices.ContainsFunc(list, func(s string) bool { return rules.Text(s) != s }) {
		return list
	}
	redacted := make(caddyhttp.LoggableStringArray, len(list))
	for i, s := range list {
		redacted[i] = rules.Text(s)
	}
	return redacted
}

// arrayEncoder redacts the texts of an array.
type arrayEncoder struct {
	zapcore.ArrayEncoder
	rules *redact.Rules
}

func (e arrayEncoder) AppendString(s string) { e.ArrayEncoder.AppendString(e.rules.Text(s)) }

func (e arrayEncoder) AppendByteString(b []byte) {
	e.ArrayEncoder.AppendByteString(redactedBytes(e.rules, b))
}

func (e arrayEncoder) AppendArray(value zapcore.ArrayMarshaler) error {
	return e.ArrayEncoder.AppendArray(redactedArray(e.rules, value))
}

func (e arrayEncoder) AppendObject(value zapcore.ObjectMarshaler) error {
	return e.ArrayEncoder.AppendObject(redactedObject{value, e.rules})
}

func (e arrayEncoder) AppendReflected(value any) error {
	value, err := redactedValue(e.rules, value)
	if err != nil {
		return err
	}
	return e.ArrayEncoder.AppendReflected(value)
}

func redactedBytes(rules *redact.Rules, b []byte) []byte {
	if s := string(b); rules.Text(s) != s {
		return []byte(rules.Text(s))
	}
	return b
}

// redactedValue is a value that would be logged by reflection, as zap's encoders do: as
// JSON. It stays what it is if nothing in it is secret.
func redactedValue(rules *redact.Rules, value any) (any, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, err
	}
	tree, changed := redactedTree(rules, tree)
	if !changed {
		return value, nil
	}
	return tree, nil
}

// redactedTree redacts what has been decoded from JSON, in place.
func redactedTree(rules *redact.Rules, tree any) (redacted any, changed bool) {
	switch tree := tree.(type) {
	case string:
		text := rules.Text(tree)
		return text, text != tree
	case []any:
		for i := range tree {
			to, c := redactedTree(rules, tree[i])
			tree[i], changed = to, changed || c
		}
	case map[string]any:
		out := make(map[string]any, len(tree))
		for name, value := range tree {
			to, c := redactedTree(rules, value)
			if rules.Hides(name) {
				to, c = redact.Mark, true
			}
			text := rules.Text(name)
			out[text], changed = to, changed || c || text != name
		}
		return out, changed
	}
	return tree, changed
}

// redactingWriter is where Go's package log writes, without secrets.
type redactingWriter struct{ io.Writer }

func (w redactingWriter) Write(p []byte) (int, error) {
	if _, err := w.Writer.Write(redactedBytes(secrets.current.Load(), p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// redactStandardLog does so for the package log, which libraries write to.
func redactStandardLog() {
	if _, done := log.Writer().(redactingWriter); !done {
		log.SetOutput(redactingWriter{log.Writer()})
	}
}
