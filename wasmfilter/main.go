// Command wasmfilter is Keystile as a proxy-wasm filter: `make wasm` builds it
// into bin/keystile.wasm, which Envoy loads. What it does is in the package
// plugin; README.md says how to configure it.
package main

import "github.com/keystile/keystile/wasmfilter/internal/envoy"

func init() { envoy.Register() }

func main() {} // never called: the host calls what the module exports
