// Command vectors writes the test vectors of the bundle format into
// core/bundle/testdata/vectors: each a bundle with at most one thing wrong, and
// in its header what a reader has to make of it. FORMAT.md describes them.
//
//	go run ./internal/check/vectors
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := write("core/bundle/testdata/vectors"); err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	all, err := vectors()
	if err != nil {
		return err
	}
	for _, v := range all {
		if err := os.WriteFile(filepath.Join(dir, v.name), v.bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// vector is one file.
type vector struct {
	name, comment string

	signers    []string
	threshold  int
	bundleName string
	audience   string
	now        int64
	skew       int64
	maxAge     int64
	after      []byte // what the edge remembers, as its state holds it
	expect     string
	finds      []string
	walk       string

	file []byte
}

func (v *vector) bytes() []byte {
	var b bytes.Buffer
	line := func(name string, value any) { fmt.Fprintf(&b, "%s: %v\n", name, value) }
	fmt.Fprintln(&b, "keystile vector v1")
	line("comment", v.comment)
	line("expect", v.expect)
	for _, s := range v.signers {
		line("signer", s)
	}
	line("threshold", v.threshold)
	line("name", v.bundleName)
	line("audience", v.audience)
	line("now", v.now)
	line("clock_skew", v.skew)
	line("max_age", v.maxAge)
	if v.after != nil {
		line("after", base64.StdEncoding.EncodeToString(v.after))
	}
	for _, f := range v.finds {
		line("find", f)
	}
	if v.walk != "" {
		line("walk", v.walk)
	}
	b.WriteByte('\n')
	b.Write(v.file)
	return b.Bytes()
}

// found is what a reader finds of a record.
type found struct {
	ID          string      `json:"id"`
	Kind        string      `json:"kind"`
	Environment string      `json:"environment"`
	Status      string      `json:"status"`
	Tenant      string      `json:"tenant,omitempty"`
	Scopes      []string    `json:"scopes,omitempty"`
	NotBefore   uint64      `json:"not_before,omitempty"`
	Expires     uint64      `json:"expires,omitempty"`
	Referrers   []string    `json:"referrers,omitempty"`
	IPs         []string    `json:"ips,omitempty"`
	Endpoints   []string    `json:"endpoints,omitempty"`
	Limits      [][2]uint64 `json:"limits,omitempty"`
}

func (r record) found() string {
	f := found{ID: r.id, Kind: r.kind, Environment: r.env, Status: map[byte]string{1: "active", 2: "deprecated", 3: "revoked"}[r.status]}
	number := func(b []byte) (v uint64) {
		for _, c := range b {
			v = v<<8 | uint64(c)
		}
		return v
	}
	for _, field := range r.fields {
		switch field.number {
		case 3:
			f.Tenant = field.texts[0]
		case 5:
			f.NotBefore = number(field.raw)
		case 7:
			f.Scopes = field.texts
		case 9:
			f.Expires = number(field.raw)
		case 11:
			f.Referrers = field.texts
		case 13:
			f.IPs = fullIPs
		case 15:
			f.Endpoints = field.texts
		case 17:
			f.Limits = fullLimits
		}
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}

// What is found of a key.
func (v *vector) find(r record) { v.findDigest(r.digest, "found "+r.found()) }

func (v *vector) findDigest(d hash, outcome string) {
	v.finds = append(v.finds, hex.EncodeToString(d[:])+" "+outcome)
}
