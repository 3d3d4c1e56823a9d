package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/duration"
)

func createCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "create --kind <kind> [--environment <name>] [--tenant <tenant>] [--scope <scope>]...",
		SuggestFor: []string{"new", "add", "make", "issue", "generate", "gen"},
		Short:      "Makes an API key and prints it, once",
		Args:       cobra.NoArgs,
	})
	f := cmd.Flags()
	f.String("name", "", "Name for people")
	f.String("kind", "", "Kind, as the policy calls it")
	f.StringP("environment", "e", "", "Environment; not needed where the policy has one")
	f.String("tenant", "", "Store, workspace or account that the key acts for")
	f.StringSlice("scope", nil, "Scope to grant; repeat it, or separate with commas")
	f.Bool("all-scopes", false, "Grant every scope that the policy declares")
	f.String("expires", "", "End: a date (2027-01-31, midnight UTC), a time (RFC 3339) or a length of time (90d)")
	f.String("not-before", "", "Begin, written like --expires")
	f.StringSlice("ip", nil, "Limit to an IP address or prefix")
	f.StringSlice("referrer", nil, "Limit to an origin, like https://shop.example.com")
	f.StringSlice("endpoint", nil, "Limit to an endpoint, like 'GET /v1/users/{id}'")
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		n, err := newKey(cmd)
		if err != nil {
			return err
		}
		var k *control.Key
		var secret credential.Secret
		err = progress(cmd, "building the bundle", func() (err error) {
			k, secret, err = b.Keyring().Create(cmd.Context(), n)
			return err
		})
		if err != nil {
			return err
		}
		if err := printNew(cmd, k, secret, nil); err != nil {
			return err
		}
		warnOfKey(cmd, b.Policy, k)
		return nil
	})
	return cmd
}

func newKey(cmd *cobra.Command) (n control.NewKey, err error) {
	f := cmd.Flags()
	text := func(name string) string {
		s, e := f.GetString(name)
		err = errors.Join(err, e)
		return s
	}
	list := func(name string) []string {
		l, e := f.GetStringSlice(name)
		err = errors.Join(err, e)
		return l
	}
	at := func(name string) *time.Time {
		t, e := timeFlag(cmd, name)
		err = errors.Join(err, e)
		return t
	}
	n = control.NewKey{
		Name: text("name"), Kind: text("kind"), Environment: text("environment"), Tenant: text("tenant"),
		Scopes: list("scope"), IPs: list("ip"), Referrers: list("referrer"), Endpoints: list("endpoint"),
		Expires: at("expires"), NotBefore: at("not-before"),
	}
	all, e := f.GetBool("all-scopes")
	n.AllScopes = all
	return n, errors.Join(err, e)
}

// parseTime reads a date (midnight UTC at its beginning), a time or a length of
// time from now; "" is none.
func parseTime(s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, s); err == nil {
			t = t.UTC()
			return &t, nil
		}
	}
	d, err := duration.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no date (2027-01-31), time (2027-01-31T12:00:00Z) or length of time (90d)", s)
	}
	t := now.Add(d).UTC().Truncate(time.Second)
	return &t, nil
}

// warnOfKey says on standard error what a new key does not do.
func warnOfKey(cmd *cobra.Command, p *policy.Policy, k *control.Key) {
	kind := p.Kinds[p.KindIndex(k.Kind)]
	if kind.Scoped && len(k.Scopes) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "Warning: the key has no scopes, and can do only what needs none. Scopes are %q.\n", p.Grants.Scopes)
	}
	if kind.Limit != (policy.Limit{}) {
		warnOfLimits(cmd, kind.Name)
	}
}

// warnOfLimits says that the limits of kinds are not enforced.
func warnOfLimits(cmd *cobra.Command, kinds ...string) {
	if len(kinds) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "Warning: limits are not enforced yet: keys of kind %s may send any number of requests. Limit them elsewhere meanwhile.\n", strings.Join(kinds, ", "))
	}
}

// limited are the policy's kinds that have a limit.
func limited(p *policy.Policy) (kinds []string) {
	for _, k := range p.Kinds {
		if k.Limit != (policy.Limit{}) {
			kinds = append(kinds, k.Name)
		}
	}
	return kinds
}

// printNew prints a key that was just made, with its secret. old is the key that it
// replaces, or nil.
func printNew(cmd *cobra.Command, k *control.Key, secret credential.Secret, old *control.Key) error {
	value := struct {
		*control.Key
		Secret string `json:"secret"`
		// ReplacedUntil is when the key that it replaces ends; absent for never.
		ReplacedUntil *time.Time `json:"replaced_until,omitempty"`
	}{Key: k, Secret: secret.Reveal()}
	if old != nil {
		value.ReplacedUntil = old.Expires
	}
	return output(cmd, value, func(w io.Writer) {
		fmt.Fprintf(w, "Key %s (%s, %s)\n\n  %s\n\n", k.ID, k.Kind, k.Environment, secret.Reveal())
		if k.Public == "" {
			fmt.Fprintln(w, "This is the only time that it is shown: store it now.")
		}
		if k.Expires != nil {
			fmt.Fprintf(w, "It expires at %s.\n", k.Expires.Format(time.RFC3339))
		}
		if old != nil && old.Expires != nil {
			fmt.Fprintf(w, "It replaces %s, which goes on working until %s, unless you revoke it before.\n", old.ID, old.Expires.UTC().Format(time.RFC3339))
		} else if old != nil {
			fmt.Fprintf(w, "It replaces %s, which goes on working until you revoke it.\n", old.ID)
		}
	})
}

func rollCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "roll <id> [--end <time>] [--expires <time>]",
		SuggestFor: []string{"rotate", "replace", "renew", "regenerate", "reroll"},
		Short:      "Makes a new key like an old one, which goes on working until it is revoked, or ends (--end)",
		Args:       cobra.ExactArgs(1),
	})
	cmd.Flags().String("end", "", "Let the old key expire: a date, a time or a length of time (24h)")
	cmd.Flags().String("expires", "", "End of the new key, written likewise; default: that of the old key, if it has one")
	cmd.RunE = withBundle(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		var roll control.Roll
		var err error
		if roll.End, err = timeFlag(cmd, "end"); err != nil {
			return err
		}
		if roll.Expires, err = timeFlag(cmd, "expires"); err != nil {
			return err
		}
		var rolled control.Rolled
		err = progress(cmd, "building the bundle", func() (err error) {
			rolled, err = b.Keyring().Roll(cmd.Context(), args[0], roll)
			return err
		})
		if err != nil {
			return err
		}
		if err := printNew(cmd, rolled.Key, rolled.Secret, rolled.Old); err != nil {
			return err
		}
		if rolled.Expires != nil && roll.Expires == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "Warning: the new key ends at %s (in %s), as the old one was to. For another end: `caddy keystile keys roll %s --expires 90d`.\n",
				rolled.Expires.Format(time.RFC3339), time.Until(*rolled.Expires).Round(time.Minute), rolled.ID)
		}
		return nil
	})
	return cmd
}

// timeFlag reads a flag that is a time; nil if it is not given.
func timeFlag(cmd *cobra.Command, name string) (*time.Time, error) {
	s, err := cmd.Flags().GetString(name)
	if err != nil {
		return nil, err
	}
	t, err := parseTime(s, time.Now())
	if err != nil {
		return nil, usagef("--%s: %w", name, err)
	}
	return t, nil
}
