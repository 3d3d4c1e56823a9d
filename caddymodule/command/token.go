package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
)

func tokenCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "token --subject <name> [--claim <name>=<value>]... [--life <time>]",
		Short: "Makes a customer token, for demos and tests",
		Long: `Makes a customer token as the bundle's policy wants it, for demos and tests.

It is signed by a key that is made on first use and kept in the bundle's folder;
its public key becomes the bundle's key set unless there is one already. Issuer
and audience are the policy's; --claim sets the others, such as store_id=store_1.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().String("subject", "", "Who the customer is")
	cmd.Flags().StringArray("claim", nil, "Claim, as name=value")
	cmd.Flags().Duration("life", time.Hour, "Time until it expires; negative for a token that has")
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		subject, err := cmd.Flags().GetString("subject")
		life, err2 := cmd.Flags().GetDuration("life")
		given, err3 := cmd.Flags().GetStringArray("claim")
		if err := errors.Join(err, err2, err3); err != nil {
			return err
		}
		if subject == "" {
			return errors.New("name the customer with --subject")
		}
		claims := make(map[string]string)
		for _, g := range given {
			name, value, ok := strings.Cut(g, "=")
			if !ok {
				return fmt.Errorf("--claim %q: write name=value", g)
			}
			claims[name] = value
		}
		token, err := b.DemoToken(cmd.Context(), subject, claims, life)
		if err != nil {
			return err
		}
		return output(cmd, map[string]string{"token": token}, func(w io.Writer) { fmt.Fprintln(w, token) })
	})
	return cmd
}
