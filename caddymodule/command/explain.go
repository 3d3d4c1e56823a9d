package command

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
)

func explainCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "explain [flags] [-- curl <arguments>]",
		SuggestFor: []string{"why", "trace", "debug"},
		Short:      "Says step by step why a request is denied or allowed",
		Long: `Says step by step why a request is denied or allowed, and how to mend it. It sends
nothing: it decides as an edge does, by the bundle in force.

Give the request as a command line of curl, after --, or on standard input, where
the API key does not get into the shell's history:

  caddy keystile explain -- curl -H 'X-Api-Key: …' https://api.example.com/v1/x
  caddy keystile explain <command.txt

or with --method, --url and --header. --key-id takes the place of a key whose text
is not at hand: the decision is as if that key had been sent too. A key or a token
is never printed.

--file names another bundle than the home's, with the signers to trust. --policy is
a policy that is not published yet: it decides with the bundle's hosts, key sets and
keys.

What an edge is configured with (tls_terminators, max_age, how it finds the client's
address) is not known here: give the client's address with --client-ip.`,
		Args:        cobra.ArbitraryArgs,
		Annotations: map[string]string{takesSecrets: "a request has its API key"},
	})
	f := cmd.Flags()
	f.SetInterspersed(false) // curl's flags are curl's
	f.String("method", "GET", "Method of the request")
	f.String("url", "", "URL of the request")
	f.StringArray("header", nil, "Line of the request's header, as 'Name: value'; repeat it")
	f.String("key-id", "", "ID of the key to decide for")
	f.String("client-ip", "", "Address of the client")
	f.String("sni", "", "Server name of TLS, where it is not the URL's host")
	f.Bool("early-data", false, "The request comes before the TLS handshake is complete")
	f.String("at", "", "Time to decide at: a date, a time (RFC 3339) or a length of time from now (90d); default: now")
	f.String("file", "", "Bundle to decide by, a file or directory, instead of the home's")
	f.String("policy", "", "Policy to decide by that is not published yet: shipped, or a file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := readAsked(cmd, args)
		if err != nil {
			return usageError{err}
		}
		b, source, err := a.open(cmd)
		if err != nil {
			return err
		}
		defer source.Close()
		e, err := a.explain(cmd, b)
		if err != nil {
			return err
		}
		told := newTold(b, a, &e)
		return output(cmd, told, told.print)
	}
	return cmd
}

// asked is what is to be explained, and by what.
type asked struct {
	*call
	keyID     string
	client    netip.Addr
	earlyData bool
	at        *time.Time // nil for now
	file      string
	policy    string
}

func readAsked(cmd *cobra.Command, args []string) (a *asked, err error) {
	f := cmd.Flags()
	text := func(name string) string {
		s, e := f.GetString(name)
		err = errors.Join(err, e)
		return s
	}
	a = &asked{keyID: text("key-id"), file: text("file"), policy: text("policy")}
	client, sni, at := text("client-ip"), text("sni"), text("at")
	early, e := f.GetBool("early-data")
	if err = errors.Join(err, e); err != nil {
		return nil, err
	}
	a.earlyData = early
	if a.file != "" && a.policy != "" {
		return nil, errors.New("--policy is for a bundle of the home, whose hosts and key sets it needs: leave --file out")
	}
	if a.call, err = readCall(cmd, args); err != nil {
		return nil, err
	}
	if sni != "" {
		a.sni = sni
	}
	if a.at, err = parseTime(at, time.Now()); err != nil {
		return nil, fmt.Errorf("--at: %w", err)
	}
	if client != "" {
		if a.client, err = netip.ParseAddr(client); err != nil {
			return nil, errors.New("--client-ip: write an address, like 192.0.2.1")
		}
	}
	return a, nil
}

// readCall reads the request from flags, from a command line of curl, or from one on
// standard input.
func readCall(cmd *cobra.Command, args []string) (*call, error) {
	f := cmd.Flags()
	byFlags := f.Changed("url") || f.Changed("method") || f.Changed("header")
	switch {
	case byFlags && len(args) > 0:
		return nil, errors.New("give --method, --url and --header, or a command line of curl: not both")
	case byFlags:
		return flagCall(cmd)
	case len(args) > 0:
		return parseCurl(args)
	}
	const most = 1 << 20
	typed, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), most))
	if err != nil {
		return nil, err
	}
	if strings.TrimSpace(string(typed)) == "" {
		return nil, errors.New("no request: give a command line of curl after -- or on standard input, or --url")
	}
	words, err := splitWords(string(typed))
	if err != nil {
		return nil, err
	}
	return parseCurl(words)
}

// flagCall is the request of --method, --url and --header.
func flagCall(cmd *cobra.Command) (*call, error) {
	f := cmd.Flags()
	method, err := f.GetString("method")
	target, err2 := f.GetString("url")
	given, err3 := f.GetStringArray("header")
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	if target == "" {
		return nil, errors.New("give the request's URL with --url")
	}
	c, user, err := parseURL(target, false)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	if user != "" {
		return nil, errors.New("--url: give user and password as --header 'Authorization: Basic …'")
	}
	c.method, c.http11 = method, true
	for _, g := range given {
		line, err := parseLine(g)
		if err != nil {
			return nil, fmt.Errorf("--header: %w", err)
		}
		c.addLines(core.Lines{line})
	}
	return c, nil
}

// open opens the bundle that decides.
func (a *asked) open(cmd *cobra.Command) (*bundle.Bundle, *disk.Source, error) {
	var path []string
	if a.file != "" {
		path = append(path, a.file)
	}
	b, source, err := openNamed(cmd, path...)
	if err != nil || a.policy == "" {
		return b, source, err
	}
	b, err = a.candidate(cmd, b)
	if err != nil {
		source.Close()
	}
	return b, source, err
}

// candidate is the bundle that would be published under another policy: the keys of b,
// signed here by signers that nobody else trusts.
func (a *asked) candidate(cmd *cobra.Command, b *bundle.Bundle) (candidate *bundle.Bundle, err error) {
	document, file, err := readPolicy(a.policy)
	if err != nil {
		return nil, err
	}
	var p *policy.Policy
	err = withoutPolicy(func(_ *cobra.Command, _ []string, home *control.Bundle) (err error) {
		p, err = home.Compile(file, document, nil)
		return err
	})(cmd, nil)
	if err != nil {
		return nil, err
	}
	err = progress(cmd, "building the bundle", func() (err error) {
		candidate, err = resigned(b, p)
		return err
	})
	return candidate, err
}

// resigned is b under another policy, with the times of b.
func resigned(b *bundle.Bundle, p *policy.Policy) (*bundle.Bundle, error) {
	var records []bundle.Record
	if err := b.Walk(func(r *bundle.Record) error { records = append(records, *r); return nil }); err != nil {
		return nil, err
	}
	for _, r := range records {
		if p.KindIndex(r.Kind) < 0 {
			return nil, fmt.Errorf("policy %s has no kind %q, and key %s is of it: edges would refuse the bundle", p.Name, r.Kind, r.KeyID)
		}
	}
	private, public, err := note.GenerateKey(rand.Reader, "explain")
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		return nil, err
	}
	publication, err := bundle.Publish(p, b.PolicyNote.Name, b.PolicyNote.Audience, b.PolicyNote.Version, []string{public}, signer)
	if err != nil {
		return nil, err
	}
	signed, err := publication.Sign(records, b.Manifest.Version, b.Life(), signer)
	if err != nil {
		return nil, err
	}
	trust, err := bundle.NewTrust(b.PolicyNote.Name, b.PolicyNote.Audience, 1, public)
	if err != nil {
		return nil, err
	}
	return signed.Open(trust)
}

// explain decides by b.
func (a *asked) explain(cmd *cobra.Command, b *bundle.Bundle) (e core.Explanation, err error) {
	// A bundle is taken as it is, whatever --at says: its times are a step of the decision.
	clock := time.UnixMilli(max(b.Manifest.Version, b.PolicyNote.Version))
	v, err := core.New(core.Config{Now: func() time.Time { return clock }})
	if err != nil {
		return e, err
	}
	if err := v.Activate(b); err != nil {
		return e, err
	}
	clock = time.Now()
	if a.at != nil {
		clock = *a.at
	}
	if a.keyID == "" {
		return v.Explain(a.request()), nil
	}
	var rec *bundle.Record
	err = progress(cmd, "looking for the key", func() error {
		rec, err = recordOf(b, a.keyID)
		return err
	})
	if err != nil {
		return e, err
	}
	return v.ExplainKey(a.request(), rec)
}

var errFound = errors.New("found")

// recordOf is the record of the key called id. An error does not quote it: it may be an
// API key.
func recordOf(b *bundle.Bundle, id string) (rec *bundle.Record, err error) {
	err = b.Walk(func(r *bundle.Record) error {
		if r.KeyID == id {
			rec = r
			return errFound
		}
		return nil
	})
	switch {
	case rec != nil:
		return rec, nil
	case err != nil:
		return nil, err
	case b.Policy.Grammar().Within(id):
		return nil, errors.New("--key-id: this is an API key, and not its ID: give the ID, which `caddy keystile keys list` shows, or the key in the request")
	}
	return nil, fmt.Errorf("--key-id: bundle %s has no key of this ID: `caddy keystile keys list` shows the IDs", b.PolicyNote.Name)
}

// request is the request as core takes it.
func (a *asked) request() *core.Request {
	return &core.Request{
		TLS: a.tls, EarlyData: a.earlyData, SNI: a.sni, ClientIP: func() netip.Addr { return a.client },
		Method: a.method, Authority: a.authority, Path: a.path, Query: a.query, Headers: a.lines, HTTP11: a.http11, Body: a.body,
	}
}
