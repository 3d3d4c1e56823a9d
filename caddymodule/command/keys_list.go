package command

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
)

func listCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{Use: "list", SuggestFor: []string{"ls", "all", "dir"}, Short: "Lists all keys, oldest first", Args: cobra.NoArgs})
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		keys, err := b.Keyring().List(cmd.Context())
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
	cmd := bundleFlag(&cobra.Command{Use: "show <id>", SuggestFor: []string{"get", "info", "inspect", "describe", "view", "cat"}, Short: "Shows one key, without its secret", Args: cobra.ExactArgs(1)})
	cmd.RunE = withBundle(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		k, err := b.Keyring().Show(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return output(cmd, k, func(w io.Writer) { printKey(w, k) })
	})
	return cmd
}

// printKey prints all that is known of a key.
func printKey(w io.Writer, k *control.Key) {
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
