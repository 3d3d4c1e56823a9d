package bundle_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
)

// vector is a file of testdata/vectors, as FORMAT.md describes it.
type vector struct {
	header map[string][]string
	pack   []byte
}

func readVector(t testing.TB, path string) vector {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, pack, ok := bytes.Cut(raw, []byte("\n\n"))
	first, lines, _ := strings.Cut(string(head), "\n")
	if !ok || first != "keystile vector v1" {
		t.Fatal("not a vector")
	}
	v := vector{make(map[string][]string), pack}
	for line := range strings.SplitSeq(lines, "\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		v.header[name] = append(v.header[name], value)
	}
	return v
}

func (v vector) one(name string) string {
	if len(v.header[name]) == 0 {
		return ""
	}
	return v.header[name][0]
}

func (v vector) number(t *testing.T, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(v.one(name), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// open opens the vector's bundle as an edge does and returns the stage at which
// it is refused.
func (v vector) open(t *testing.T) (b *bundle.Bundle, stage string, err error) {
	t.Helper()
	trust, err := bundle.NewTrust(v.one("name"), v.one("audience"), int(v.number(t, "threshold")), v.header["signer"]...)
	if err != nil {
		return nil, "trust", err
	}
	pack, err := bundle.OpenPack(bytes.NewReader(v.pack), int64(len(v.pack)))
	if err != nil {
		return nil, "pack", err
	}
	if b, err = bundle.Open(pack.Notes, pack.Compiled, pack, trust); err != nil {
		switch {
		case strings.HasPrefix(err.Error(), "policy note: "):
			return nil, "policy-note", err
		case strings.HasPrefix(err.Error(), "manifest: "):
			return nil, "manifest", err
		}
		return nil, "policy", err
	}
	var last *bundle.Mark
	if after := v.one("after"); after != "" {
		raw, err := base64.StdEncoding.DecodeString(after)
		if err != nil {
			t.Fatal(err)
		}
		if notes, err := bundle.ParseState(raw); err == nil {
			last, _ = trust.Open(notes) // what does not hold is dropped
		}
	}
	if err = b.CheckSuccession(last); err == nil {
		now := time.UnixMilli(v.number(t, "now"))
		err = b.CheckTime(now, time.Duration(v.number(t, "clock_skew"))*time.Millisecond, time.Duration(v.number(t, "max_age"))*time.Millisecond)
	}
	for stage, is := range map[string]error{
		"rollback": bundle.ErrRollback, "forked": bundle.ErrForked, "future": bundle.ErrFuture, "expired": bundle.ErrExpired, "too-old": bundle.ErrTooOld,
	} {
		if errors.Is(err, is) {
			return nil, stage, err
		}
	}
	return b, "good", err
}

// found is what a vector says of a record.
type found struct {
	ID          string      `json:"id"`
	Kind        string      `json:"kind"`
	Environment string      `json:"environment"`
	Status      string      `json:"status"`
	Tenant      string      `json:"tenant,omitempty"`
	Scopes      []string    `json:"scopes,omitempty"`
	NotBefore   int64       `json:"not_before,omitempty"`
	Expires     int64       `json:"expires,omitempty"`
	Referrers   []string    `json:"referrers,omitempty"`
	IPs         []string    `json:"ips,omitempty"`
	Endpoints   []string    `json:"endpoints,omitempty"`
	Limits      [][2]uint64 `json:"limits,omitempty"`
}

func describe(r *bundle.Record) string {
	f := found{
		ID: r.KeyID, Kind: r.Kind, Environment: r.Environment, Status: r.Status.String(), Tenant: r.Tenant, Scopes: r.Scopes,
		NotBefore: r.NotBefore, Expires: r.Expires, Referrers: r.Referrers, Endpoints: r.Endpoints,
	}
	for _, p := range r.Prefixes {
		f.IPs = append(f.IPs, p.String())
	}
	for _, l := range r.Limits {
		f.Limits = append(f.Limits, [2]uint64{l.Requests, uint64(l.Window / time.Second)})
	}
	b, _ := json.Marshal(f)
	return string(b)
}

// lookUp says what becomes of one key.
func lookUp(b *bundle.Bundle, d *credential.Digest) string {
	rec, _, err := b.Find(d, nil)
	var node *bundle.NodeError
	switch {
	case errors.As(err, &node):
		return "node " + node.Node.String()
	case err != nil:
		return "key"
	case rec == nil:
		return "absent"
	}
	return "found " + describe(rec)
}

// The vectors are built by internal/check/vectors from FORMAT.md alone. What is there
// twice (R51), or in another form than the one (R58), is refused.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*")
	if err != nil || len(files) < 150 {
		t.Fatal(len(files), "vectors", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			v := readVector(t, file)
			b, stage, err := v.open(t)
			if want := v.one("expect"); stage != want {
				t.Fatalf("%s (%v), not %s: %s", stage, err, want, v.one("comment"))
			}
			if b == nil {
				if testing.Verbose() {
					t.Log(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			finds := v.header["find"]
			if len(finds) == 0 {
				t.Error("nothing is looked for")
			}
			for _, f := range finds {
				digest, want, _ := strings.Cut(f, " ")
				raw, err := hex.DecodeString(digest)
				if err != nil || len(raw) != 32 {
					t.Fatalf("find %q", f)
				}
				d := credential.Digest(raw)
				if got := lookUp(b, &d); got != want {
					_, _, err := b.Find(&d, nil)
					t.Errorf("key %s: %s (%v), not %s", digest, got, err, want)
				}
			}
			keys := 0
			err = b.Walk(func(*bundle.Record) error { keys++; return nil })
			if want := v.one("walk"); (err == nil) != (want == "good") || err == nil && uint64(keys) != b.Manifest.Keys {
				t.Errorf("reading it all: %v, %d keys; not %s", err, keys, want)
			}
		})
	}
}

// Every stage and outcome has vectors.
func TestVectorsCover(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, file := range files {
		v := readVector(t, file)
		seen[v.one("expect")]++
		for _, f := range v.header["find"] {
			seen["find "+strings.Fields(f)[1]]++
		}
		seen["walk "+v.one("walk")]++
	}
	for _, want := range []string{
		"good", "trust", "pack", "policy-note", "manifest", "policy", "rollback", "forked", "future", "expired", "too-old",
		"find found", "find absent", "find node", "find key", "walk good", "walk refused",
	} {
		if seen[want] == 0 {
			t.Errorf("no vector shows %q", want)
		}
	}
	t.Log(fmt.Sprint(seen))
}

// seeds gives use every vector's packed file with its trust.
func seeds(f *testing.F, use func(pack []byte, policyNote, manifest []byte)) {
	f.Helper()
	files, err := filepath.Glob("testdata/vectors/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, file := range files {
		raw := readVector(f, file).pack
		if len(raw) > 16<<10 {
			continue // the fuzzer is slow with large ones
		}
		if pack, err := bundle.OpenPack(bytes.NewReader(raw), int64(len(raw))); err == nil {
			use(raw, pack.Notes.PolicyNote, pack.Notes.Manifest)
		}
	}
}

// vectorTrust is what most vectors are to be believed by.
func vectorTrust(f *testing.F) (*bundle.Trust, vector) {
	f.Helper()
	v := readVector(f, "testdata/vectors/good")
	trust, err := bundle.NewTrust(v.one("name"), v.one("audience"), 2, v.header["signer"]...)
	if err != nil {
		f.Fatal(err)
	}
	return trust, v
}

// Whatever two signed notes are, they are refused, or say in their texts, which
// trusted keys have signed, what was read of them.
func FuzzSignedNotes(f *testing.F) {
	trust, _ := vectorTrust(f)
	seeds(f, func(_, note, manifest []byte) { f.Add(note, manifest) })
	f.Fuzz(func(t *testing.T, note, manifest []byte) {
		m, err := trust.Open(bundle.Notes{PolicyNote: note, Manifest: manifest})
		if err != nil {
			return
		}
		if !bytes.HasPrefix(note, m.PolicyNote.Text()) || !bytes.Contains(manifest, []byte("root "+m.Manifest.Root.String()+"\n")) {
			t.Error("what was read is not what was signed")
		}
		state := bundle.AppendState(nil, m.Notes)
		if notes, err := bundle.ParseState(state); err != nil || !bytes.Equal(notes.PolicyNote, note) || !bytes.Equal(notes.Manifest, manifest) {
			t.Errorf("it is remembered otherwise: %v", err)
		}
	})
}

// A state is read as what it was written from, or refused.
func FuzzState(f *testing.F) {
	seeds(f, func(_, note, manifest []byte) {
		f.Add(bundle.AppendState(nil, bundle.Notes{PolicyNote: note, Manifest: manifest}))
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		if notes, err := bundle.ParseState(b); err == nil && !bytes.Equal(bundle.AppendState(nil, notes), b) {
			t.Error("it is read as another state")
		}
	})
}

// Whatever a packed file is, it is refused, or its keys are found as in the good
// one, absent as there, or denied.
func FuzzPack(f *testing.F) {
	trust, good := vectorTrust(f)
	var digests []credential.Digest
	var want []string
	for _, line := range good.header["find"] {
		digest, outcome, _ := strings.Cut(line, " ")
		raw, err := hex.DecodeString(digest)
		if err != nil {
			f.Fatal(err)
		}
		digests, want = append(digests, credential.Digest(raw)), append(want, outcome)
	}
	pack, err := bundle.OpenPack(bytes.NewReader(good.pack), int64(len(good.pack)))
	if err != nil {
		f.Fatal(err)
	}
	believed, err := bundle.Open(pack.Notes, pack.Compiled, pack, trust)
	if err != nil {
		f.Fatal(err)
	}
	seeds(f, func(raw, _, _ []byte) { f.Add(raw) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		pack, err := bundle.OpenPack(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			return
		}
		b, err := bundle.Open(pack.Notes, pack.Compiled, pack, trust)
		if err != nil || b.Manifest != believed.Manifest {
			return // other bundles that these signers have signed are vectors too
		}
		for i := range digests {
			if got := lookUp(b, &digests[i]); got != want[i] && !strings.HasPrefix(got, "node ") {
				t.Errorf("key %d: %s, not %s", i, got, want[i])
			}
		}
	})
}
