package wire

import (
	"bytes"
	"testing"
)

func TestIntHasOneEncoding(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 129, 16383, 16384, 1 << 20, 1<<55 + 3, MaxInt} {
		b := AppendInt(nil, v)
		r := NewReader(b)
		if got := r.Int(MaxInt); got != v || r.Done() != nil {
			t.Errorf("%d: read back %d, %v from %x", v, got, r.Err(), b)
		}
		for cut := range b {
			r := NewReader(b[:cut])
			if r.Int(MaxInt); r.Err() == nil {
				t.Errorf("%d: cut to %d bytes was accepted", v, cut)
			}
		}
		if v > 0 {
			r := NewReader(b)
			if r.Int(v - 1); r.Err() == nil {
				t.Errorf("%d: a limit of %d was not kept", v, v-1)
			}
		}
	}
	for name, b := range map[string][]byte{
		"leading zero digit": {0x80, 0x01},
		"nine digits":        {0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00},
	} {
		r := NewReader(b)
		if r.Int(MaxInt); r.Err() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestUint(t *testing.T) {
	for _, v := range []uint64{0, 1, 255, 256, 1 << 32, 1<<64 - 1} {
		b := AppendUint(nil, v)
		if got, err := ParseUint(b); got != v || err != nil {
			t.Errorf("%d: %d, %v", v, got, err)
		}
	}
	for _, b := range [][]byte{{0}, {0, 1}, bytes.Repeat([]byte{1}, 9)} {
		if _, err := ParseUint(b); err == nil {
			t.Errorf("%x: accepted", b)
		}
	}
}

func TestFields(t *testing.T) {
	field := func(n uint64) []byte { return AppendField(nil, n, "x") }
	tests := map[string]struct {
		in []byte
		ok bool
	}{
		"known":            {field(1), true},
		"unknown even":     {append(field(1), field(4)...), true},
		"unknown odd":      {append(field(1), field(5)...), false},
		"twice":            {append(field(1), field(1)...), false},
		"out of order":     {append(field(4), field(1)...), false},
		"number zero":      {field(0), false},
		"truncated":        {field(1)[:2], false},
		"length too large": {AppendInt(AppendInt(nil, 1), 1000), false},
	}
	for name, tt := range tests {
		r := NewReader(tt.in)
		err := r.Fields(100, func(n uint64, _ []byte) (bool, error) { return n == 1, nil })
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(AppendField(nil, 1, "value"))
	f.Add([]byte{0x80, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		var again []byte
		if r.Fields(1<<20, func(n uint64, v []byte) (bool, error) {
			again = AppendField(again, n, v)
			return true, nil
		}) == nil && !bytes.Equal(again, b) {
			t.Errorf("%x was read and written back as %x", b, again)
		}
	})
}

// R58: nothing follows the end of an object.
func TestNothingFollows(t *testing.T) {
	for _, text := range []string{"", "a"} {
		raw := AppendBytes(nil, text)
		if r := NewReader(raw); string(r.Bytes(10)) != text || r.Done() != nil {
			t.Errorf("%q: %v", text, r.Err())
		}
		if r := NewReader(append(raw, 0)); r.Bytes(10) == nil || r.Done() == nil {
			t.Errorf("a byte after %q is taken", text)
		}
	}
}
