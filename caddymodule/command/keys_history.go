package command

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/control/store"
)

func historyCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "history [id]",
		SuggestFor: []string{"log", "audit", "changes", "events"},
		Short:      "Lists who did what to a key, or to all, and when",
		Args:       cobra.MaximumNArgs(1),
	})
	cmd.RunE = withoutPolicy(func(cmd *cobra.Command, args []string, b *control.Bundle) error {
		id := ""
		if len(args) > 0 {
			id = args[0]
		}
		changes, err := b.Keyring().History(cmd.Context(), id)
		if err != nil {
			return err
		}
		if changes == nil {
			changes = []*store.Change{}
		}
		return output(cmd, changes, func(w io.Writer) {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "AT\tACTION\tKEY\tWHO\tFROM\tDETAIL")
			for _, c := range changes {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", c.At.Format(time.RFC3339), c.Action, dash(c.Key), dash(c.Who), dash(c.From), dash(c.Detail))
			}
			t.Flush()
		})
	})
	return cmd
}

// operator is who gives commands here, for the history.
func operator() store.Actor {
	var a store.Actor
	if u, err := user.Current(); err == nil {
		a.Who = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		a.From = host
	}
	return a
}
