package policy

import (
	"strings"
	"testing"

	"github.com/keystile/keystile/core/internal/wire"
	"github.com/keystile/keystile/core/shape"
)

// A list of a known length has it, and a number fits.
func TestCodecRefuses(t *testing.T) {
	answers := []Answer{{Status: 401}}
	short := write(func(c *codec) { list(c, 1, &answers, (*Answer).fields) })
	var to [2]Answer
	if err := read(short, func(c *codec) { array(c, 1, to[:], [2]string{"answers", "reasons"}, (*Answer).fields) }); err == nil {
		t.Error("one answer for two reasons")
	}
	var small uint8
	if err := read(wire.AppendField(nil, 1, wire.AppendUint(nil, 257)), func(c *codec) { number(c, 1, &small) }); err == nil {
		t.Errorf("257 is read as %d", small)
	}
	var texts []string
	if err := read(wire.AppendField(nil, 1, append(wire.AppendBytes(wire.AppendInt(nil, 1), "a"), 'x')), func(c *codec) { c.texts(1, &texts) }); err == nil {
		t.Errorf("something follows a list: %q", texts)
	}
	for name, p := range map[string]*Policy{
		"no environment":                   {Kinds: make([]Kind, 1), Environments: []string{"live"}, Hosts: []Host{{Name: "h"}}},
		"an environment that is not there": {Kinds: make([]Kind, 1), Environments: []string{"live"}, Hosts: []Host{{Name: "h", Environments: 2}}},
		"a kind that is not there":         {Kinds: make([]Kind, 1), Environments: []string{"live"}, Routes: []Route{{Kinds: 2}}},
		"a method that is not there":       {Kinds: make([]Kind, 1), Environments: []string{"live"}, Routes: []Route{{Methods: 1 << shape.NumMethods}}},
	} {
		if p.checkIndexes() == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
	b := Bind{Claim: "c", To: BindKeyID + 1}
	if read(write(b.fields), new(Bind).fields) == nil {
		t.Error("a claim that is bound to nothing known")
	}
}

// R58: a text in a compiled policy is UTF-8, and not over its limit.
func TestTextRefuses(t *testing.T) {
	for text, ok := range map[string]bool{
		"é": true, strings.Repeat("x", maxText): true, strings.Repeat("x", maxText+1): false, "\xff": false, "a\xc3": false, "\xed\xa0\x80": false,
	} {
		var one string
		var several []string
		err := read(wire.AppendField(nil, 1, []byte(text)), func(c *codec) { c.text(1, &one) })
		if (err == nil) != ok {
			t.Errorf("%.10q, %d bytes: %v", text, len(text), err)
		}
		err = read(wire.AppendField(nil, 1, wire.AppendBytes(wire.AppendInt(nil, 1), text)), func(c *codec) { c.texts(1, &several) })
		if (err == nil) != ok {
			t.Errorf("%.10q, %d bytes, in a list: %v", text, len(text), err)
		}
	}
}
