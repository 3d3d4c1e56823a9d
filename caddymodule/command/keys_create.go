package command

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/duration"
)

func createCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "create --kind <kind> [--environment <name>] [--tenant <tenant>] [--scope <scope>]...",
		Short: "Makes an API key and prints it, once",
		Args:  cobra.NoArgs,
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
		return printNew(cmd, k, secret, nil)
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
		t, e := parseTime(text(name), time.Now())
		if e != nil {
			err = errors.Join(err, fmt.Errorf("--%s: %w", name, e))
		}
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

// printNew prints a key that was just made, with its secret. oldEnd is when the key that
// it replaces ends, or nil.
func printNew(cmd *cobra.Command, k *control.Key, secret credential.Secret, oldEnd *time.Time) error {
	value := struct {
		*control.Key
		Secret string `json:"secret"`
	}{k, secret.Reveal()}
	return output(cmd, value, func(w io.Writer) {
		fmt.Fprintf(w, "Key %s (%s, %s)\n\n  %s\n\n", k.ID, k.Kind, k.Environment, secret.Reveal())
		if k.Public == "" {
			fmt.Fprintln(w, "This is the only time that it is shown: store it now.")
		}
		if k.Expires != nil {
			like := ""
			if k.Replaces != "" {
				like = ", as the key that it replaces does: create a key with --expires if that is too early"
			}
			fmt.Fprintf(w, "It expires at %s%s.\n", k.Expires.Format(time.RFC3339), like)
		}
		if k.Replaces != "" && oldEnd != nil {
			fmt.Fprintf(w, "It replaces %s, which goes on working until %s.\n", k.Replaces, oldEnd.UTC().Format(time.RFC3339))
		} else if k.Replaces != "" {
			fmt.Fprintf(w, "It replaces %s, which goes on working until you revoke it.\n", k.Replaces)
		}
	})
}

func rollCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "roll <id> [--end <time>]",
		Short: "Makes a new key like an old one, which goes on working until it is revoked, or ends (--end)",
		Args:  cobra.ExactArgs(1),
	})
	cmd.Flags().String("end", "", "Let the old key expire: a date, a time or a length of time (24h)")
	cmd.RunE = withBundle(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		s, err := cmd.Flags().GetString("end")
		if err != nil {
			return err
		}
		end, err := parseTime(s, time.Now())
		if err != nil {
			return fmt.Errorf("--end: %w", err)
		}
		var k *control.Key
		var secret credential.Secret
		err = progress(cmd, "building the bundle", func() (err error) {
			k, secret, err = b.Keyring().Roll(cmd.Context(), args[0], end)
			return err
		})
		if err != nil {
			return err
		}
		return printNew(cmd, k, secret, end)
	})
	return cmd
}
