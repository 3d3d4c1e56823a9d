package command

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/disk"
)

func packCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "pack [bundle] <file>",
		SuggestFor: []string{"export", "zip"},
		Short:      "Writes a bundle, from a directory or the home, as one packed file",
		Args:       cobra.RangeArgs(1, 2),
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target := args[len(args)-1]
		if err := keepKey(target); err != nil {
			return err
		}
		b, source, err := openNamed(cmd, args[:len(args)-1]...)
		if err != nil {
			return err
		}
		defer source.Close()
		if err := progress(cmd, "packing", func() error { return disk.WritePack(target, b, source.Compiled) }); err != nil {
			return err
		}
		return output(cmd, summaryOf(b), func(w io.Writer) {
			fmt.Fprintf(w, "Packed bundle %s into %s: %d keys, version %d.\n", b.PolicyNote.Name, target, b.Manifest.Keys, b.Manifest.Version)
		})
	}
	return cmd
}

func unpackCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "unpack [bundle] <directory>",
		SuggestFor: []string{"import", "extract"},
		Short:      "Writes a bundle node by node into a directory that a web server can serve",
		Long: `Writes a bundle node by node into a directory that a web server can serve. Nodes
that are there already stay as they are, so that one change of a key costs a few
small files. Whatever happens on the way, a reader meets the bundle before or the
new one.

--prune removes what earlier bundles left, once no edge uses them any more.`,
		Args: cobra.RangeArgs(1, 2),
	})
	cmd.Flags().Bool("prune", false, "Remove what this bundle does not need")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		prune, err := cmd.Flags().GetBool("prune")
		if err != nil {
			return err
		}
		return unpack(cmd, args[:len(args)-1], args[len(args)-1], prune)
	}
	return cmd
}

// unpack writes the bundle that from names into the directory target, and prunes
// that if it is told to.
func unpack(cmd *cobra.Command, from []string, target string, prune bool) error {
	b, source, err := openNamed(cmd, from...)
	if err != nil {
		return err
	}
	defer source.Close()
	written, removed := 0, 0
	if err := progress(cmd, "unpacking", func() error {
		if written, err = disk.WriteDir(target, b, source.Compiled); err != nil || !prune {
			return err
		}
		removed, err = disk.Prune(target, b)
		return err
	}); err != nil {
		return err
	}
	return output(cmd, map[string]any{"bundle": summaryOf(b), "written": written, "removed": removed}, func(w io.Writer) {
		fmt.Fprintf(w, "Unpacked bundle %s into %s: %d keys, version %d, %d new nodes", b.PolicyNote.Name, target, b.Manifest.Keys, b.Manifest.Version, written)
		if prune {
			fmt.Fprintf(w, ", %d old files removed", removed)
		}
		fmt.Fprintln(w, ".")
	})
}
