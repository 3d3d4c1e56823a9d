package command

import (
	"io"

	"github.com/spf13/cobra"
)

// Caddy is `caddy` with the command keystile alone, in this process.
func Caddy(in io.Reader, out io.Writer) *cobra.Command {
	root := &cobra.Command{Use: "caddy", SilenceUsage: true}
	keystile := &cobra.Command{Use: "keystile"}
	root.AddCommand(keystile)
	assemble(keystile)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(out)
	return root
}
