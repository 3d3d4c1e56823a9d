package caddymodule

import (
	"regexp"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"

	"github.com/keystile/keystile/core/bundle"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("keystile", parseGlobal)
	httpcaddyfile.RegisterHandlerDirective("keystile", parseHandler)
	httpcaddyfile.RegisterDirectiveOrder("keystile", httpcaddyfile.Before, "basic_auth")
}

// parseGlobal reads the global option. It may stand more than once, as in
// imported snippets; a bundle's name may not.
func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if prev, ok := existing.(httpcaddyfile.App); ok {
		if err := caddy.StrictUnmarshalJSON(prev.Value, app); err != nil {
			return nil, err
		}
	}
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "keystile", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads the global option:
//
//	keystile {
//		bundle <name> {
//			file            <path>
//			signer          <verifier key>...
//			signer_file     <path>
//			threshold       <number of signers>
//			audience        <name>
//			state           <path>|off
//			min_version     <version> [<policy version>]
//			max_age         <duration>
//			clock_skew      <duration>
//			record_cache    <size>
//			node_cache      <size>
//			token_cache     <size>
//			tls_terminators <address or prefix>...
//		}
//		log_redaction off
//	}
//
// `file` and a signer are needed; everything else has a default.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := refusePrivateKey(d); err != nil {
		return err
	}
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name, args := d.Val(), d.RemainingArgs()
		if name == "log_redaction" {
			if len(args) != 1 || args[0] != RedactionOff {
				return d.Errf("log_redaction takes %s: without it API keys are taken out of Caddy's logs", RedactionOff)
			}
			a.LogRedaction = RedactionOff
			continue
		}
		if name != "bundle" {
			return d.Errf("unrecognized subdirective %q: use bundle <name> { … } or log_redaction off", name)
		}
		if len(args) != 1 {
			return d.Err("bundle takes one name, and a block")
		}
		if a.Bundles[args[0]] != nil {
			return d.Errf("bundle %q is given twice", args[0])
		}
		b := new(Bundle)
		if err := b.unmarshalCaddyfile(d); err != nil {
			return err
		}
		if a.Bundles == nil {
			a.Bundles = make(map[string]*Bundle)
		}
		a.Bundles[args[0]] = b
	}
	return nil
}

func (b *Bundle) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name, args := d.Val(), d.RemainingArgs()
		many := name == "signer" || name == "tls_terminators"
		if seen[name] && !many {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		if len(args) == 0 || len(args) > 1 && !many && !(name == "min_version" && len(args) == 2) {
			return d.Errf("%s takes %s", name, map[bool]string{true: "one value or more", false: "one value"}[many])
		}
		if err := b.set(name, args); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

func (b *Bundle) set(name string, args []string) (err error) {
	switch arg := args[0]; name {
	case "file":
		b.File = arg
	case "signer":
		b.Signers = append(b.Signers, args...)
	case "signer_file":
		b.SignerFile = arg
	case "threshold":
		b.Threshold, err = strconv.Atoi(arg)
	case "audience":
		b.Audience = arg
	case "state":
		b.State = arg
	case "min_version":
		b.MinVersion, err = strconv.ParseInt(arg, 10, 64)
		if err == nil && len(args) == 2 {
			b.MinPolicyVersion, err = strconv.ParseInt(args[1], 10, 64)
		}
	case "max_age":
		err = duration(&b.MaxAge, arg)
	case "clock_skew":
		err = duration(&b.ClockSkew, arg)
	case "record_cache":
		err = size(&b.RecordCache, arg)
	case "node_cache":
		err = size(&b.NodeCache, arg)
	case "token_cache":
		err = size(&b.TokenCache, arg)
	case "tls_terminators":
		b.TLSTerminators = append(b.TLSTerminators, args...)
	default:
		return errUnknown(name, "file, signer, signer_file, threshold, audience, state, min_version, max_age, clock_skew, record_cache, node_cache, token_cache or tls_terminators")
	}
	if err != nil {
		return errValue(name, args[0], err)
	}
	return nil
}

func duration(to *caddy.Duration, s string) error {
	d, err := caddy.ParseDuration(s)
	*to = caddy.Duration(d)
	return err
}

func size(to *int64, s string) error {
	n, err := humanize.ParseBytes(s)
	*to = int64(n)
	return err
}

func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	keystile [<matcher>] <bundle> {
//		errors    answer|pass
//		rewritten
//		partial
//	}
//
// The block may be left out.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := refusePrivateKey(d); err != nil {
		return err
	}
	d.Next()
	if !d.AllArgs(&h.Bundle) {
		return d.Err("keystile takes the name of one bundle")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name, args := d.Val(), d.RemainingArgs()
		switch name {
		case "errors":
			if h.Errors != "" {
				return d.Err("errors is given twice")
			}
			if len(args) != 1 || args[0] != errorsAnswer && args[0] != errorsPass {
				return d.Errf("errors takes %s or %s", errorsAnswer, errorsPass)
			}
			h.Errors = args[0]
		case "rewritten":
			if len(args) != 0 {
				return d.Err("rewritten takes no value")
			}
			h.Rewritten = true
		case "partial":
			if len(args) != 0 {
				return d.Err("partial takes no value")
			}
			h.Partial = true
		default:
			return d.WrapErr(errUnknown(name, "errors, rewritten or partial"))
		}
	}
	return nil
}

// refusePrivateKey refuses a private key wherever it stands, before an error can quote
// it.
func refusePrivateKey(d *caddyfile.Dispenser) error {
	defer d.Reset()
	for d.Next() {
		if bundle.HoldsPrivateKey(d.Val()) {
			return d.WrapErr(bundle.ErrPrivateKey)
		}
	}
	return nil
}

// numberError is what strconv says of itself.
var numberError = regexp.MustCompile(`^strconv\.\w+: `)

func errUnknown(name, known string) error {
	return caddyfileError("unrecognized subdirective " + strconv.Quote(name) + ": use " + known)
}

func errValue(name, value string, err error) error {
	return caddyfileError(name + " " + strconv.Quote(value) + ": " + numberError.ReplaceAllString(err.Error(), ""))
}

// caddyfileError is an error text; the dispenser adds file and line.
type caddyfileError string

func (e caddyfileError) Error() string { return string(e) }

var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
