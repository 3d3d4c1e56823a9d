package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/duration"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Creates, lists, shows, rolls, revokes and restores API keys",
	}
	cmd.AddCommand(createCommand(), listCommand(), showCommand(), rollCommand(), revokeCommand(), restoreCommand())
	return cmd
}

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
			k, secret, err = b.Create(cmd.Context(), n)
			return err
		})
		if err != nil {
			return err
		}
		return printNew(cmd, k, secret)
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

// printNew prints a key that was just made, with its secret.
func printNew(cmd *cobra.Command, k *control.Key, secret credential.Secret) error {
	value := struct {
		*control.Key
		Secret string `json:"secret"`
	}{k, secret.Reveal()}
	return output(cmd, value, func(w io.Writer) {
		fmt.Fprintf(w, "Key %s (%s, %s)\n\n  %s\n\n", k.ID, k.Kind, k.Environment, secret.Reveal())
		if k.Public == "" {
			fmt.Fprintln(w, "This is the only time that it is shown: store it now.")
		}
		if k.Replaces != "" {
			fmt.Fprintf(w, "It replaces %s, which goes on working until you revoke it.\n", k.Replaces)
		}
	})
}

func listCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{Use: "list", Short: "Lists all keys, oldest first", Args: cobra.NoArgs})
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		keys, err := b.List(cmd.Context())
		if err != nil {
			return err
		}
		if keys == nil {
			keys = []*control.Key{}
		}
		return output(cmd, keys, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tNAME\tKIND\tENVIRONMENT\tTENANT\tSTATUS\tENDS WITH\tCREATED\tEXPIRES")
			for _, k := range keys {
				status := k.Status
				if k.Rotate {
					status += ", rotate"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, dash(k.Name), k.Kind, k.Environment, dash(k.Tenant),
					status, dash(k.Hint), created(k, time.DateOnly), date(k.Expires))
			}
			t.Flush()
		})
	})
	return cmd
}

func showCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{Use: "show <id>", Short: "Shows one key, without its secret", Args: cobra.ExactArgs(1)})
	cmd.RunE = withBundle(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		k, err := b.Show(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return output(cmd, k, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, line := range [][2]string{
				{"ID", k.ID},
				{"Name", k.Name},
				{"Kind", k.Kind},
				{"Environment", k.Environment},
				{"Tenant", k.Tenant},
				{"Status", k.Status},
				{"Scopes", strings.Join(k.Scopes, " ")},
				{"Key", k.Public},
				{"Key ends with", k.Hint},
				{"Created", created(k, time.RFC3339)},
				{"Not before", stamp(k.NotBefore)},
				{"Expires", stamp(k.Expires)},
				{"Revoked", stamp(k.Revoked)},
				{"Limited to IPs", strings.Join(k.IPs, " ")},
				{"Limited to referrers", strings.Join(k.Referrers, " ")},
				{"Limited to endpoints", strings.Join(k.Endpoints, ", ")},
				{"Replaces", k.Replaces},
			} {
				if line[1] != "" {
					fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
				}
			}
			if k.Rotate {
				fmt.Fprintln(t, "Rotate\tolder than the policy wants: roll it")
			}
			t.Flush()
		})
	})
	return cmd
}

func rollCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "roll <id> [--end <time>]",
		Short: "Makes a new key like an old one, which goes on working until it is revoked",
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
			k, secret, err = b.Roll(cmd.Context(), args[0], end)
			return err
		})
		if err != nil {
			return err
		}
		return printNew(cmd, k, secret)
	})
	return cmd
}

func revokeCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "revoke <id>",
		Short: "Ends a key, at once and for ever",
		Args:  cobra.ExactArgs(1),
	})
	cmd.RunE = withPublished(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		var k *control.Key
		err := progress(cmd, "building the bundle", func() (err error) {
			k, err = b.Revoke(cmd.Context(), args[0])
			return err
		})
		if err != nil {
			return err
		}
		return output(cmd, k, func(w io.Writer) { fmt.Fprintf(w, "Key %s is revoked.\n", k.ID) })
	})
	return cmd
}

func restoreCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "restore [file|directory]",
		Short: "Takes keys, revocations and ends over from the published bundle into the key store",
		Long: `Takes keys, revocations and ends over from the published bundle into the key store,
and publishes. It is for a store that is gone, or that was put back from an older
copy: nothing is published from one before, since keys would cease to work or work
again.

Name a file or directory to take over as well what is in that: the copy that an
edge has, where the file here is gone or old too.

A bundle has no names, hints and times of creation of keys, and no API keys of
kinds that may be shown again: the store goes without them.`,
		Args: cobra.MaximumNArgs(1),
	})
	cmd.RunE = withPublished(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		from := ""
		if len(args) > 0 {
			from = args[0]
		}
		var r control.Restored
		err := progress(cmd, "restoring", func() (err error) {
			r, err = b.Restore(cmd.Context(), from)
			return err
		})
		if err != nil {
			return err
		}
		return output(cmd, r, func(w io.Writer) {
			fmt.Fprintf(w, "Restored bundle %s: %d keys added, %d revoked, deprecated or ended earlier.\n", b.Name, r.Keys, r.Changed)
			if r.Keys > 0 {
				fmt.Fprintln(w, "The bundle has no names, hints and times of creation: the keys added are without.")
			}
		})
	})
	return cmd
}

// created is when a key was made; a published bundle does not tell that.
func created(k *control.Key, layout string) string {
	if k.Created.IsZero() {
		return "unknown"
	}
	return k.Created.Format(layout)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func date(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.DateOnly)
}

func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}
