package command

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
)

func keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Creates, lists, shows, finds, rolls, revokes and restores API keys",
	}
	cmd.AddCommand(createCommand(), listCommand(), showCommand(), findCommand(), historyCommand(), rollCommand(), revokeCommand(), restoreCommand())
	return cmd
}

func revokeCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "revoke <id>",
		SuggestFor: []string{"delete", "remove", "rm", "del", "disable", "end", "expire", "kill", "destroy"},
		Short:      "Ends a key, at once and for ever",
		Args:       cobra.ExactArgs(1),
	})
	cmd.RunE = withoutPolicy(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		var k *control.Key
		err := progress(cmd, "building the bundle", func() (err error) {
			k, err = b.Keyring().Revoke(cmd.Context(), args[0])
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
		Use:        "restore [file|directory]",
		SuggestFor: []string{"recover", "import", "repair"},
		Short:      "Takes keys, revocations and ends over from the published bundle into the key store",
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
	cmd.RunE = withoutPolicy(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		from := ""
		if len(args) > 0 {
			from = args[0]
		}
		var r control.Restored
		err := progress(cmd, "restoring", func() (err error) {
			r, err = b.Keyring().Restore(cmd.Context(), from)
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
