// Command wasmprune removes exports from a WASM module, so that the proxy does not
// call what does nothing: the SDK exports every callback there is, and Envoy calls
// each that it finds, at a microsecond and more.
//
//	go run ./internal/wasmprune FILE KEEP...
//
// It keeps the exports that are named, and fails if one of them is not there.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "wasmprune: name a file, and the exports to keep")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "wasmprune:", err)
		os.Exit(1)
	}
}

func run(file string, keep []string) error {
	module, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pruned, err := prune(module, keep)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, pruned, 0o644)
}

const exportSection = 7

var errModule = errors.New("it is no WASM module")

// prune copies a module, with an export section that has only what is to be kept.
func prune(module []byte, keep []string) ([]byte, error) {
	if !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errModule
	}
	out := bytes.Clone(module[:8])
	for rest := module[8:]; len(rest) > 0; {
		id := rest[0]
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return nil, errModule
		}
		body := rest[1+n : 1+n+int(size)]
		rest = rest[1+n+int(size):]
		if id == exportSection {
			var err error
			if body, err = pruneExports(body, keep); err != nil {
				return nil, err
			}
		}
		out = binary.AppendUvarint(append(out, id), uint64(len(body)))
		out = append(out, body...)
	}
	return out, nil
}

func pruneExports(section []byte, keep []string) ([]byte, error) {
	count, n := binary.Uvarint(section)
	if n <= 0 {
		return nil, errModule
	}
	var kept []byte
	var names []string
	rest := section[n:]
	for range count {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n-1) {
			return nil, errModule
		}
		name := string(rest[n : n+int(length)])
		_, m := binary.Uvarint(rest[n+int(length)+1:]) // after the kind
		if m <= 0 {
			return nil, errModule
		}
		end := n + int(length) + 1 + m
		if slices.Contains(keep, name) {
			kept = append(kept, rest[:end]...)
			names = append(names, name)
		}
		rest = rest[end:]
	}
	for _, k := range keep {
		if !slices.Contains(names, k) {
			return nil, fmt.Errorf("it does not export %q", k)
		}
	}
	return append(binary.AppendUvarint(nil, uint64(len(names))), kept...), nil
}
