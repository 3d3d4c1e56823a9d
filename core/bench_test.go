package core_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

// The benchmark's bundle: benchKeys restricted keys of vinr, of which benchUsed
// are asked for in random order.
const (
	benchKeys = 100_000
	benchUsed = 10_000
)

// header gives lines as Caddy's header does.
func header(lines map[string][]string) core.Lines {
	var out core.Lines
	for name, values := range lines {
		for _, v := range values {
			out = append(out, core.Header{Name: name, Value: v})
		}
	}
	return out
}

// words are a digest's first 128 bits, as the verifier's own caches take them.
func words(digest []byte) (uint64, uint64) {
	return binary.BigEndian.Uint64(digest), binary.BigEndian.Uint64(digest[8:])
}

func benchVerifier(b *testing.B) (*core.Verifier, []string) {
	b.Helper()
	p, err := policies.Compile("vinr", noOptions)
	if err != nil {
		b.Fatal(err)
	}
	records := make([]bundle.Record, benchKeys)
	var keys []string
	for i := range records {
		secret, err := credential.Generate("rk", "live")
		if err != nil {
			b.Fatal(err)
		}
		records[i] = bundle.Record{
			Digest: secret.Digest(), KeyID: "rk_" + credential.RandomText(16), Kind: "restricted", Environment: "live",
			Tenant: fmt.Sprintf("acct_%d", i%1000), Status: bundle.Active,
			Scopes: []string{"payments:read", "payouts:read", "refunds:write"}, Expires: time.Now().Add(time.Hour).Unix(),
		}
		if len(keys) < benchUsed {
			keys = append(keys, secret.Reveal())
		}
	}
	opened, err := table.Bundle(p, records)
	if err != nil {
		b.Fatal(err)
	}
	v, err := core.New(core.Config{})
	if err != nil {
		b.Fatal(err)
	}
	if err := v.Activate(opened); err != nil {
		b.Fatal(err)
	}
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return v, keys
}

func benchRequest(key string) *core.Request {
	return &core.Request{
		TLS: true, SNI: "api.vinr.com", Method: "GET", Authority: "api.vinr.com", Path: "/v1/payments/pay_1234567890",
		Headers: core.Lines{
			{Name: "X-Api-Key", Value: key}, {Name: "User-Agent", Value: "curl/8.5.0"}, {Name: "Accept", Value: "*/*"}, {Name: "Accept-Encoding", Value: "gzip"},
		},
	}
}

// BenchmarkKnownKey compares a decision about a key that was seen before with
// what any check of a hashed key has to do.
func BenchmarkKnownKey(b *testing.B) {
	v, keys := benchVerifier(b)
	perOp := make(map[string]float64)
	note := func(b *testing.B) {
		perOp[b.Name()[strings.LastIndexByte(b.Name(), '/')+1:]] = float64(b.Elapsed()) / float64(b.N)
	}
	b.Run("sha256+map", func(b *testing.B) {
		defer note(b)
		m := make(map[[32]byte]int, len(keys))
		for i, k := range keys {
			m[sha256.Sum256([]byte(k))] = i
		}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if _, ok := m[credential.DigestOf(keys[i%len(keys)])]; !ok {
				b.Fatal("missing")
			}
			i++
		}
	})
	b.Run("sha256+ristretto", func(b *testing.B) {
		defer note(b)
		c, err := ristretto.NewCache(&ristretto.Config[[]byte, int]{
			NumCounters: 655360, MaxCost: 64 << 20, BufferItems: 64, IgnoreInternalCost: true, KeyToHash: words,
		})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		for i, k := range keys {
			d := credential.DigestOf(k)
			c.Set(d[:], i, 512)
			c.Wait()
		}
		d := new(credential.Digest)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			*d = credential.DigestOf(keys[i%len(keys)])
			if _, ok := c.Get(d[:]); !ok {
				b.Fatal("missing")
			}
			i++
		}
	})
	b.Run("keystile", func(b *testing.B) {
		defer note(b)
		for _, k := range keys { // seen before
			if d := v.Verify(benchRequest(k)); d.Outcome != core.Allow {
				b.Fatal(d.Reason, d.Err)
			}
			v.Wait()
		}
		r := benchRequest("")
		line := &r.Headers.(core.Lines)[0]
		runtime.GC()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			line.Value = keys[i%len(keys)]
			if d := v.Verify(r); d.Outcome != core.Allow || len(d.Set) != 5 {
				b.Fatal(d.Reason, d.Err)
			}
			i++
		}
	})
	if own := perOp["keystile"]; own > 0 && perOp["sha256+map"] > 0 && perOp["sha256+ristretto"] > 0 {
		fmt.Printf("known key: %.2f times SHA-256 and a ristretto Get, %.2f times SHA-256 and a Go map\n",
			own/perOp["sha256+ristretto"], own/perOp["sha256+map"])
	}
}

// BenchmarkUnknownKey is a flood of well-formed keys that were never issued, no
// one twice: with the leaves in the cache, since known keys stand in them, and
// without.
func BenchmarkUnknownKey(b *testing.B) {
	made := make([]string, 200_000)
	for i := range made {
		s, err := credential.Generate("rk", "live")
		if err != nil {
			b.Fatal(err)
		}
		made[i] = s.Reveal()
	}
	flood := func(b *testing.B, v *core.Verifier) {
		r := benchRequest("")
		line := &r.Headers.(core.Lines)[0]
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			line.Value = made[i%len(made)]
			if d := v.Verify(r); d.Outcome != core.Deny {
				b.Fatal("allowed")
			}
			i++
		}
	}
	b.Run("warm", func(b *testing.B) {
		v, keys := benchVerifier(b)
		for _, k := range keys {
			v.Verify(benchRequest(k))
			v.Wait()
		}
		flood(b, v)
	})
	b.Run("cold", func(b *testing.B) {
		v, _ := benchVerifier(b)
		flood(b, v)
	})
}
