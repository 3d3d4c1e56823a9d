package command

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/control/store"
)

// maxTyped is more than the longest API key.
const maxTyped = 1024

func findCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "find",
		Short: "Says which key an API key is, which it reads from standard input",
		Long: `Reads one API key from standard input and says which key it is: its ID, its
bundle and what it may do. The API key is not printed, and not kept: it is
looked up by its digest. In a terminal it is not shown while you type.

It looks in all bundles of the home, or in the one that --bundle names.`,
		Args: cobra.NoArgs,
	})
	cmd.RunE = withHome(func(cmd *cobra.Command, _ []string, h *control.Home) error {
		name, err := cmd.Flags().GetString("bundle")
		if err != nil {
			return err
		}
		names := []string{name}
		if name == "" {
			if names, err = h.Bundles(); err != nil {
				return err
			}
		}
		key, err := readKey(cmd)
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := h.Bundle(name)
			if err != nil {
				return err
			}
			k, err := b.Keyring().Find(cmd.Context(), key)
			switch {
			case err == nil:
				return output(cmd, struct {
					Bundle string `json:"bundle"`
					*control.Key
				}{b.Name, k}, func(w io.Writer) {
					fmt.Fprintf(w, "It is a key of bundle %s.\n\n", b.Name)
					printKey(w, k)
				})
			case !errors.Is(err, store.ErrNotFound):
				return err
			}
		}
		return fmt.Errorf("no key of %s is this API key: it was not made here, or was not copied whole", cmp.Or(strings.Join(names, ", "), "this home"))
	})
	return cmd
}

// readKey reads a line from standard input, which a terminal does not show.
func readKey(cmd *cobra.Command) (string, error) {
	var line string
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), "API key: ")
		typed, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", err
		}
		line = string(typed)
	} else {
		lines := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), maxTyped))
		var err error
		if line, err = lines.ReadString('\n'); err != nil && err != io.EOF {
			return "", err
		}
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.New("no API key came: give it on standard input, as in `caddy keystile keys find < file`")
	}
	return line, nil
}
