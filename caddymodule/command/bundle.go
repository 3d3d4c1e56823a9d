package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/caddymodule/control"
	"github.com/keystile/keystile/core/bundle"
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

func buildCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "build [--jwks <name>=<file>]... [--note <file>]...",
		Short: "Builds and signs a bundle from the store and the policy as they are",
		Long: `Builds and signs a bundle from the store and the policy as they are.

Commands that change keys do this by themselves; it is needed after a change of
the policy file. --jwks takes over the public keys of customer tokens: a JSON Web
Key Set, under the name that the policy gives it. It is kept for later builds.

--note puts a policy note in force that policy signers elsewhere have signed, with
"policy sign"; repeat it for the signatures of several.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().StringArray("jwks", nil, "Key set of customer tokens, as name=file")
	cmd.Flags().StringArray("note", nil, "Signed policy note to put in force")
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		sets, err := keySets(cmd)
		if err != nil {
			return err
		}
		files, err := cmd.Flags().GetStringArray("note")
		if err != nil {
			return err
		}
		var notes [][]byte
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("--note: %w", err)
			}
			notes = append(notes, raw)
		}
		err = progress(cmd, "building the bundle", func() error {
			switch {
			case len(sets) > 0 && len(notes) > 0:
				return errors.New("give --jwks first, and --note for a note that was written afterwards")
			case len(sets) > 0:
				return b.SetKeySets(cmd.Context(), sets)
			case len(notes) > 0:
				return b.Adopt(cmd.Context(), notes...)
			}
			return b.Build(cmd.Context())
		})
		if err != nil {
			return err
		}
		return printState(cmd, b, "Built")
	})
	return cmd
}

// keySets are the files of --jwks, by the key set's name.
func keySets(cmd *cobra.Command) (map[string][]byte, error) {
	given, err := cmd.Flags().GetStringArray("jwks")
	if err != nil {
		return nil, err
	}
	sets := make(map[string][]byte)
	for _, g := range given {
		name, file, ok := strings.Cut(g, "=")
		if !ok {
			return nil, fmt.Errorf("--jwks %q: write name=file", g)
		}
		if sets[name], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--jwks: %w", err)
		}
	}
	return sets, nil
}

func rotateCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "rotate publisher|signer",
		Short: "Replaces the publisher's key, or the active policy signer by the standby",
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
		Use:   "reset",
		Short: "Begins versions anew, after some were signed in the future by a wrong clock",
		Long: `Begins versions anew at this clock's time, after some were signed far in the
future by a clock that was wrong. Edges refuse such versions; an edge whose own
clock was as wrong has accepted one and remembers it. If only the manifest's was
wrong, "bundle rotate publisher" makes edges forget it; else remove their state
file.`,
		Args: cobra.NoArgs,
	})
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		if err := b.Reset(cmd.Context()); err != nil {
			return err
		}
		return printState(cmd, b, "Reset")
	})
	return cmd
}

func renewCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "renew [--every <time>]",
		Short: "Signs the published keys again, with the publisher's key and the file alone",
		Args:  cobra.NoArgs,
	})
	cmd.Flags().Duration("every", 0, "Go on, once in every so long")
	cmd.RunE = withPublished(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		every, err := cmd.Flags().GetDuration("every")
		if err != nil {
			return err
		}
		if every < 0 || every > bundle.DefaultLife/2 {
			return fmt.Errorf("--every %s: at most %s, so that the bundle does not expire between", every, bundle.DefaultLife/2)
		}
		for {
			if err := progress(cmd, "signing", func() error { return b.Renew(cmd.Context()) }); err != nil {
				return err
			}
			if err := printState(cmd, b, "Renewed"); err != nil || every == 0 {
				return err
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(every):
			}
		}
	})
	return cmd
}

func printState(cmd *cobra.Command, b *control.Bundle, done string) error {
	opened, source, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer source.Close()
	s := stateOf(opened)
	return output(cmd, s, func(w io.Writer) {
		fmt.Fprintf(w, "%s bundle %s: %d keys, version %d, expires %s.\n", done, s.Name, s.Keys, s.Version, s.Expires.Format(time.RFC3339))
	})
}
