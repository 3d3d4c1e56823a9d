// Package keystile is a turnstile for API keys: one verifier, compiled into a
// custom Caddy and into a proxy-wasm filter for Envoy, decides each request from
// a signed policy bundle that it holds locally.
//
// This package only makes
//
//	xcaddy build --with github.com/keystile/keystile
//
// work: it links the Caddy module. The verifier itself is package core.
package keystile

import (
	_ "github.com/keystile/keystile/caddymodule"         // the app and the handler
	_ "github.com/keystile/keystile/caddymodule/command" // caddy keystile
)
