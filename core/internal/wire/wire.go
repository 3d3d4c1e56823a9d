// Package wire reads and writes the one encoding that every Keystile object
// uses: (number, length, value) fields and counted lists, in one canonical form.
//
// A [Writer] appends; a [Reader] takes apart and remembers its first error, so
// that a decoder reads straight through and asks [Reader.Err] once. Integers
// are base-128, most significant digit first, without leading zero digits, so
// a value has exactly one encoding. core/bundle/FORMAT.md is the description
// for other implementations.
package wire

import (
	"errors"
	"fmt"
)

// ErrTruncated is returned when a value ends before it is complete.
var ErrTruncated = errors.New("object is truncated")

// MaxInt is the largest integer of the encoding: eight digits of seven bits.
const MaxInt = 1<<56 - 1

// AppendInt appends v (at most [MaxInt]) as a minimal base-128 integer.
func AppendInt(b []byte, v uint64) []byte {
	if v > MaxInt {
		panic("wire: integer over 56 bits") // a programming error: callers bound their values
	}
	shift := 49
	for shift > 0 && v>>shift == 0 {
		shift -= 7
	}
	for ; shift > 0; shift -= 7 {
		b = append(b, byte(v>>shift)|0x80)
	}
	return append(b, byte(v)&0x7f)
}

// AppendBytes appends the length of s, then s.
func AppendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(AppendInt(b, uint64(len(s))), s...)
}

// AppendField appends one (number, length, value) field.
func AppendField[T ~string | ~[]byte](b []byte, number uint64, value T) []byte {
	return AppendBytes(AppendInt(b, number), value)
}

// AppendUint appends v big-endian in as few bytes as hold it, none for zero.
// It is the form of an integer that fills a whole field value.
func AppendUint(b []byte, v uint64) []byte {
	for shift := 56; shift >= 0; shift -= 8 {
		if v>>shift != 0 {
			b = append(b, byte(v>>shift))
		}
	}
	return b
}

// ParseUint reads what [AppendUint] wrote: the whole of b, at most eight bytes.
func ParseUint(b []byte) (uint64, error) {
	if len(b) > 8 {
		return 0, errors.New("integer is over 8 bytes")
	}
	if len(b) > 0 && b[0] == 0 {
		return 0, errors.New("integer has a leading zero byte")
	}
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, nil
}

// Reader takes an object apart from front to back. The zero value reads an
// empty object. After the first error every method returns zero values.
type Reader struct {
	b   []byte
	pos int
	err error
}

// NewReader returns a Reader over b. What it returns aliases b.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Err is the first error, or nil.
func (r *Reader) Err() error { return r.err }

// Fail records err unless an earlier error stands.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// More says whether bytes are left to read, and no error stands.
func (r *Reader) More() bool { return r.err == nil && r.pos < len(r.b) }

// Offset is how many bytes have been read.
func (r *Reader) Offset() int { return r.pos }

// Take returns the next n bytes.
func (r *Reader) Take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b)-r.pos {
		r.err = ErrTruncated
		return nil
	}
	s := r.b[r.pos : r.pos+n : r.pos+n]
	r.pos += n
	return s
}

// Byte returns the next byte.
func (r *Reader) Byte() byte {
	if r.err == nil && r.pos < len(r.b) {
		c := r.b[r.pos]
		r.pos++
		return c
	}
	if r.err == nil {
		r.err = ErrTruncated
	}
	return 0
}

// Int reads a minimal base-128 integer of at most limit.
func (r *Reader) Int(limit uint64) uint64 {
	c := r.Byte()
	if c < 0x80 && uint64(c) <= limit { // nearly every integer is one byte
		return uint64(c)
	}
	if c == 0x80 {
		r.Fail("integer has a leading zero digit")
		return 0
	}
	v := uint64(c & 0x7f)
	for n := 1; c >= 0x80; n++ {
		if n == 8 {
			r.Fail("integer is over 8 digits")
			return 0
		}
		c = r.Byte()
		v = v<<7 | uint64(c&0x7f)
	}
	if v > limit {
		r.Fail("integer %d is over its limit of %d", v, limit)
	}
	if r.err != nil {
		return 0
	}
	return v
}

// Bytes reads a length of at most limit and that many bytes.
func (r *Reader) Bytes(limit int) []byte {
	return r.Take(int(r.Int(uint64(limit))))
}

// Done records an error unless the object was read to its end.
func (r *Reader) Done() error {
	if r.err == nil && r.pos != len(r.b) {
		r.err = fmt.Errorf("%d bytes follow the end of the object", len(r.b)-r.pos)
	}
	return r.err
}

// Fields reads fields to the end of the object in strictly ascending order and
// hands each to use, which returns false for a number that it does not know.
// An unknown odd number is an error; an unknown even one is skipped.
func (r *Reader) Fields(limit int, use func(number uint64, value []byte) (known bool, err error)) error {
	last := uint64(0)
	for r.More() {
		number := r.Int(1 << 20)
		value := r.Bytes(limit)
		if r.err != nil {
			break
		}
		if number <= last {
			r.Fail("field %d is not in ascending order", number)
			break
		}
		last = number
		known, err := use(number, value)
		if err != nil {
			r.Fail("field %d: %w", number, err)
		} else if !known && number&1 == 1 {
			r.Fail("field %d is critical and not known to this version: update the edge", number)
		}
	}
	return r.Err()
}
