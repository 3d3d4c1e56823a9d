package main

import (
	"bytes"
	"testing"
)

// module has a type section, and exports "a" (function 0), "memory" (memory 0) and
// "b" (function 1).
var module = []byte("\x00asm\x01\x00\x00\x00" + "\x01\x01\x00" + "\x07\x12\x03" + "\x01a\x00\x00" + "\x06memory\x02\x00" + "\x01b\x00\x01")

func TestPrune(t *testing.T) {
	got, err := prune(module, []string{"memory", "b"})
	want := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x01\x00" + "\x07\x0e\x02" + "\x06memory\x02\x00" + "\x01b\x00\x01")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v\nnot\n%q", got, err, want)
	}
	if got, err := prune(module, []string{"a", "b", "memory"}); err != nil || !bytes.Equal(got, module) {
		t.Errorf("%q, %v", got, err)
	}
	for name, tt := range map[string]struct {
		module []byte
		keep   string
	}{
		"not there": {module, "c"}, "no module": {[]byte("garbage"), "a"}, "cut": {module[:len(module)-2], "a"},
		"cut in a name": {append(bytes.Clone(module[:11]), 7, 3, 1, 9, 'a'), "a"},
	} {
		if _, err := prune(tt.module, []string{tt.keep}); err == nil {
			t.Errorf("%s: pruned", name)
		}
	}
}
