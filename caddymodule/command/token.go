package command

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/demo/token"
)

func tokenCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "token --subject <name> [--claim <name>=<value>]... [--life <time>]",
		SuggestFor: []string{"jwt", "tokens", "login"},
		Short:      "Makes a customer token for a bundle of the demo",
		Long: `Makes a customer token as the policy of one of the demo's bundles wants it.

It is signed by the demo's key, which "make run" makes in the bundle's folder and
whose public key is the bundle's key set. Any other bundle has tokens from its
issuer, whose key set "bundle build --jwks" takes over: this command makes no key
trusted. Issuer and audience are the policy's; --claim sets the others, such as
store_id=store_1.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().String("subject", "", "Who the customer is")
	cmd.Flags().StringArray("claim", nil, "Claim, as name=value")
	lengthFlag(cmd, "life", time.Hour, "Time until it expires; negative for a token that has")
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		subject, err := cmd.Flags().GetString("subject")
		life, err2 := readLength(cmd, "life")
		given, err3 := cmd.Flags().GetStringArray("claim")
		if err := errors.Join(err, err2, err3); err != nil {
			return err
		}
		if subject == "" {
			return usagef("name the customer with --subject")
		}
		claims, err := parseClaims(given)
		if err != nil {
			return err
		}
		made, err := token.Make(b, subject, claims, life)
		if err != nil {
			return err
		}
		return output(cmd, map[string]string{"token": made}, func(w io.Writer) { fmt.Fprintln(w, made) })
	})
	return cmd
}

// parseClaims reads "name=value".
func parseClaims(given []string) (map[string]string, error) {
	claims := make(map[string]string)
	for _, g := range given {
		name, value, ok := strings.Cut(g, "=")
		if !ok || name == "" {
			return nil, usagef("--claim %q: write name=value", g)
		}
		claims[name] = value
	}
	return claims, nil
}
