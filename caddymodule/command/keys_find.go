package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/control/store"
)

func findCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "find <FILE",
		SuggestFor: []string{"search", "lookup", "whois", "which", "identify", "grep"},
		Short:      "Says which key an API key on standard input is",
		Long: `Says which key an API key on standard input is, in all bundles of the home or in that
of --bundle. On a terminal it asks for the API key and does not show it; else one line
is read:

    caddy keystile keys find <leaked.txt

An API key is no argument: that would stand in the shell's history.`,
		Args: cobra.NoArgs,
	})
	cmd.RunE = withHome(func(cmd *cobra.Command, _ []string, h *control.Home) error {
		bundles, err := namedBundles(cmd, h)
		if err != nil {
			return err
		}
		key, err := readAPIKey(cmd)
		if err != nil {
			return err
		}
		found, err := find(cmd, bundles, key)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return notFound(bundles, key)
		}
		return output(cmd, found, func(w io.Writer) {
			for _, f := range found {
				fmt.Fprintf(w, "A key of bundle %s:\n\n", f.Bundle)
				printKey(w, f.Key)
			}
		})
	})
	return cmd
}

// foundKey is a key with its bundle. Its text is not printed again, also where its kind
// may be shown: whoever asks has it.
type foundKey struct {
	Bundle string `json:"bundle"`
	*control.Key
}

// namedBundles are the bundle of --bundle, or all that there are.
func namedBundles(cmd *cobra.Command, h *control.Home) ([]*control.Bundle, error) {
	name, err := cmd.Flags().GetString("bundle")
	if err != nil {
		return nil, err
	}
	names := []string{name}
	if name == "" {
		if names, err = h.Bundles(); err != nil {
			return nil, err
		}
	}
	var bundles []*control.Bundle
	for _, name := range names {
		b, err := h.OpenWithoutPolicy(name)
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, b)
	}
	return bundles, nil
}

// find looks for an API key in all bundles: a store that was copied has keys of another.
func find(cmd *cobra.Command, bundles []*control.Bundle, key string) (found []foundKey, err error) {
	for _, b := range bundles {
		k, err := b.Keyring().Find(cmd.Context(), key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %w", b.Name, err)
		}
		k.Public = ""
		found = append(found, foundKey{b.Name, k})
	}
	return found, nil
}

// notFound says of an API key that no bundle has whether it is whole.
func notFound(bundles []*control.Bundle, key string) error {
	names := make([]string, len(bundles))
	for i, b := range bundles {
		names[i] = b.Name
	}
	err := fmt.Errorf("%w in the bundles %q has this API key", store.ErrNotFound, names)
	if !credential.Checksummed(key) {
		err = fmt.Errorf("%w. Its checksum does not fit: it is cut, mistyped, or was not made here", err)
	}
	return err
}

// maxAPIKey is more than any API key has, in bytes.
const maxAPIKey = 4 << 10

// readAPIKey reads an API key from standard input: one line, or what is typed on a
// terminal, unseen.
func readAPIKey(cmd *cobra.Command) (string, error) {
	text, err := readUnseen(cmd)
	if err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	key := strings.TrimSpace(string(text))
	switch {
	case key == "":
		return "", usagef("standard input is empty: give the API key there")
	case len(text) > maxAPIKey || strings.ContainsAny(key, " \t\r\n"):
		return "", usagef("standard input holds more than an API key: give the key alone, without a header's name and scheme")
	}
	return key, nil
}

func readUnseen(cmd *cobra.Command) ([]byte, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxAPIKey+1))
	}
	before, err := term.GetState(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	// Whoever gives up would be left with a terminal that shows nothing.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	go func() {
		<-interrupted
		_ = term.Restore(int(in.Fd()), before)
		os.Exit(130)
	}()
	fmt.Fprint(cmd.ErrOrStderr(), "API key (it is not shown): ")
	defer fmt.Fprintln(cmd.ErrOrStderr())
	return term.ReadPassword(int(in.Fd()))
}
