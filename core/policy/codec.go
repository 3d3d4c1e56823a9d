package policy

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/keystile/keystile/core/internal/wire"
)

// codec goes through the fields of a message in ascending order and writes each, or
// reads it: one description of a type serves both directions, so that no field can be
// written in one alone. A field with the zero value is left out: there is one encoding.
type codec struct {
	writing bool
	out     []byte
	in      []field // not reached yet
	err     error   // the first one
	last    uint64  // number reached
}

type field struct {
	number uint64
	value  []byte
}

// write is the message that describe describes.
func write(describe func(*codec)) []byte {
	c := codec{writing: true}
	describe(&c)
	return c.out
}

// read reads a message, which must be all of b. All its parts are bounded by the
// whole's size.
func read(b []byte, describe func(*codec)) error {
	c := codec{}
	r := wire.NewReader(b)
	if err := r.Fields(MaxSize, func(n uint64, value []byte) (bool, error) {
		if len(value) == 0 {
			return true, errors.New("an empty field is left out, not written")
		}
		c.in = append(c.in, field{n, value})
		return true, nil
	}); err != nil {
		return err
	}
	describe(&c)
	c.skip(1 << 63)
	return c.err
}

// skip passes over fields below n, which are not known to this version.
func (c *codec) skip(n uint64) {
	for len(c.in) > 0 && c.in[0].number < n {
		if c.in[0].number&1 == 1 {
			c.fail(fmt.Errorf("field %d is critical and not known to this version: update the edge", c.in[0].number))
		}
		c.in = c.in[1:]
	}
}

func (c *codec) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// reach comes to field n. Writing, it says so; reading, it returns the value if there
// is one.
func (c *codec) reach(n uint64) (value []byte, there bool) {
	if n <= c.last {
		panic("policy: fields are described in ascending order") // a programming error
	}
	c.last = n
	if c.writing {
		return nil, true
	}
	c.skip(n)
	if c.err != nil || len(c.in) == 0 || c.in[0].number != n {
		return nil, false
	}
	value = c.in[0].value
	c.in = c.in[1:]
	return value, true
}

// each goes on to field n, and calls put to write it or get to read it.
func (c *codec) each(n uint64, put func(), get func(value []byte) error) {
	value, there := c.reach(n)
	switch {
	case c.writing:
		put()
	case there:
		if err := get(value); err != nil {
			c.fail(fmt.Errorf("field %d: %w", n, err))
		}
	}
}

func (c *codec) put(n uint64, value []byte) {
	if len(value) > 0 {
		c.out = wire.AppendField(c.out, n, value)
	}
}

func (c *codec) bytes(n uint64, to *[]byte) {
	c.each(n, func() { c.put(n, *to) }, func(v []byte) error {
		*to = v
		return nil
	})
}

func (c *codec) text(n uint64, to *string) {
	c.each(n, func() { c.put(n, []byte(*to)) }, func(v []byte) (err error) {
		*to, err = readText(v)
		return err
	})
}

func readText(v []byte) (string, error) {
	switch {
	case len(v) > maxText:
		return "", fmt.Errorf("text of %d bytes is over its limit of %d", len(v), maxText)
	case !utf8.Valid(v):
		return "", errors.New("text is not valid UTF-8")
	}
	return string(v), nil
}

func (c *codec) flag(n uint64, to *bool) {
	c.each(n, func() {
		if *to {
			c.put(n, []byte{1})
		}
	}, func(v []byte) error {
		if len(v) != 1 || v[0] != 1 {
			return errors.New("a flag is one byte of 1, or left out")
		}
		*to = true
		return nil
	})
}

// number is an unsigned integer.
func number[T ~uint8 | ~uint32 | ~uint64 | ~int](c *codec, n uint64, to *T) {
	c.each(n, func() { c.put(n, wire.AppendUint(nil, uint64(*to))) }, func(v []byte) error {
		i, err := wire.ParseUint(v)
		*to = T(i)
		if err == nil && (uint64(*to) != i || i == 0 || i > 1<<62) {
			err = fmt.Errorf("number %d is out of range", i)
		}
		return err
	})
}

// seconds is a duration in whole seconds.
func (c *codec) seconds(n uint64, to *time.Duration) {
	s := uint64(*to / time.Second)
	if number(c, n, &s); !c.writing {
		*to = time.Duration(min(s, 1<<32)) * time.Second
	}
}

// message is a message of its own.
func (c *codec) message(n uint64, describe func(*codec)) {
	c.each(n, func() { c.put(n, write(describe)) }, func(v []byte) error { return read(v, describe) })
}

// optional is a message that may be missing.
func optional[T any](c *codec, n uint64, to **T, describe func(*T, *codec)) {
	c.each(n, func() {
		if *to != nil {
			c.put(n, write(func(c *codec) { describe(*to, c) }))
		}
	}, func(v []byte) error {
		*to = new(T)
		return read(v, func(c *codec) { describe(*to, c) })
	})
}

// list is a counted list of messages; an empty one is left out.
func list[T any](c *codec, n uint64, items *[]T, describe func(*T, *codec)) {
	c.each(n, func() { putList(c, n, *items, describe) }, func(v []byte) error {
		return entries(v, func(_ int, entry []byte) error {
			*items = append(*items, *new(T))
			return read(entry, func(c *codec) { describe(&(*items)[len(*items)-1], c) })
		})
	})
}

// array is a list of a length that is known. names says what its entries are, and of
// what there is one for each.
func array[T any](c *codec, n uint64, items []T, names [2]string, describe func(*T, *codec)) {
	c.each(n, func() { putList(c, n, items, describe) }, func(v []byte) error {
		count := 0
		err := entries(v, func(i int, entry []byte) error {
			if count++; i >= len(items) {
				return fmt.Errorf("more %s than %s", names[0], names[1])
			}
			return read(entry, func(c *codec) { describe(&items[i], c) })
		})
		if err == nil && count != len(items) {
			err = fmt.Errorf("%d %s for %d %s", count, names[0], len(items), names[1])
		}
		return err
	})
}

// texts is a counted list of texts; an empty one is left out.
func (c *codec) texts(n uint64, items *[]string) {
	c.each(n, func() {
		if len(*items) == 0 {
			return
		}
		b := wire.AppendInt(nil, uint64(len(*items)))
		for _, s := range *items {
			b = wire.AppendBytes(b, s)
		}
		c.put(n, b)
	}, func(v []byte) error {
		return entries(v, func(_ int, entry []byte) error {
			s, err := readText(entry)
			*items = append(*items, s)
			return err
		})
	})
}

func putList[T any](c *codec, n uint64, items []T, describe func(*T, *codec)) {
	if len(items) == 0 {
		return
	}
	b := wire.AppendInt(nil, uint64(len(items)))
	for i := range items {
		b = wire.AppendBytes(b, write(func(c *codec) { describe(&items[i], c) }))
	}
	c.put(n, b)
}

// entries takes a counted list apart.
func entries(v []byte, use func(i int, entry []byte) error) error {
	r := wire.NewReader(v)
	count := r.Int(maxList)
	if count == 0 && r.Err() == nil {
		return errors.New("an empty list is left out, not written")
	}
	for i := 0; i < int(count) && r.Err() == nil; i++ {
		entry := r.Bytes(MaxSize)
		if r.Err() != nil {
			break
		}
		if err := use(i, entry); err != nil {
			return fmt.Errorf("entry %d: %w", i+1, err)
		}
	}
	return r.Done()
}

// after runs once everything above it was read.
func (c *codec) after(check func() error) {
	if !c.writing && c.err == nil {
		c.err = check()
	}
}
