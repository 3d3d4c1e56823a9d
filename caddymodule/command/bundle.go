package command

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
)

func bundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Builds, renews, inspects, verifies, compares, packs and unpacks signed bundles",
	}
	cmd.AddCommand(buildCommand(), renewCommand(), rotateCommand(), resetCommand(),
		inspectCommand(), verifyCommand(), diffCommand(), packCommand(), unpackCommand())
	return cmd
}

func rotateCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "rotate publisher|signer",
		SuggestFor: []string{"replace", "roll"},
		Short:      "Replaces the publisher's key, or the active policy signer by the standby",
		Long: `Replaces the publisher's key, or the active policy signer by the standby.

publisher: makes a new key, and a policy note that lists it and no longer the old
one. Edges need no change; what the old key signed after that counts for nothing.

signer: the standby becomes the active policy signer, and a new standby is made.
--key names the standby's file where it is kept elsewhere. Edges trust both, so
that they need no change now; give them the new signers.txt before the next time.`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"publisher", "signer"},
	})
	cmd.Flags().String("key", "", "The standby signer's key file; default: the one in the bundle's folder")
	cmd.RunE = withBundle(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		key, err := cmd.Flags().GetString("key")
		if err != nil {
			return err
		}
		if args[0] == "publisher" {
			err = b.RotatePublisher(cmd.Context())
		} else {
			err = b.RotateSigner(cmd.Context(), key)
		}
		if err != nil {
			return err
		}
		return printState(cmd, b, "Rotated the "+args[0]+" of")
	})
	return cmd
}

func resetCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "reset",
		SuggestFor: []string{"restart", "clear"},
		Short:      "Begins versions anew, after some were signed in the future by a wrong clock",
		Long: `Begins versions anew at this clock's time, after some were signed far in the
future by a clock that was wrong. Edges refuse such versions; an edge whose own
clock was as wrong has accepted one and remembers it. If only the manifest's was
wrong, "bundle rotate publisher" makes edges forget it; else remove their state
file.`,
		Args: cobra.NoArgs,
	})
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		if err := b.Publisher().Reset(cmd.Context()); err != nil {
			return err
		}
		return printState(cmd, b, "Reset")
	})
	return cmd
}

func printState(cmd *cobra.Command, b *control.Bundle, done string) error {
	opened, source, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer source.Close()
	s := summaryOf(opened)
	return output(cmd, s, func(w io.Writer) {
		fmt.Fprintf(w, "%s bundle %s: %d keys, version %d, expires %s.\n", done, s.Name, s.Keys, s.Version, s.Expires.Format(time.RFC3339))
	})
}
