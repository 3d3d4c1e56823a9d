package command

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/internal/control"
)

func buildCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "build [--jwks <name>=<file>]... [--note <file>]... [--life <time>] [--trust-store]",
		SuggestFor: []string{"rebuild", "make", "create", "new", "publish", "sign"},
		Short:      "Builds and signs a bundle from the store and the policy as they are",
		Long: `Builds and signs a bundle from the store and the policy as they are.

Commands that change keys do this by themselves; it is needed after a change of
the policy file. --jwks takes over the public keys of customer tokens: a JSON Web
Key Set, under the name that the policy gives it. It is kept for later builds.

--note puts a policy note in force that policy signers elsewhere have signed, with
"policy sign"; repeat it for the signatures of several.

--life is how long what is signed is good unless it is renewed, 10m to 7d; it is
kept for later builds.

--trust-store publishes the key store as it is, although it lacks keys or
revocations that are published, or although the published file cannot be read. Keys
then cease to work, or work again: "keys restore" is nearly always the better way.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().StringArray("jwks", nil, "Key set of customer tokens, as name=file")
	cmd.Flags().StringArray("note", nil, "Signed policy note to put in force")
	cmd.Flags().Bool("trust-store", false, "Publish the key store as it is, even if it lacks what is published")
	lifeFlag(cmd)
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		f, err := readBuildFlags(cmd)
		if err != nil {
			return err
		}
		if _, err := setLife(cmd, b); err != nil {
			return err
		}
		if err := progress(cmd, "building the bundle", func() error { return f.build(cmd.Context(), b) }); err != nil {
			return err
		}
		return printState(cmd, b, "Built")
	})
	return cmd
}

// buildFlags are what `bundle build` is told.
type buildFlags struct {
	sets     map[string][]byte
	notes    [][]byte
	trusting bool // of the store
}

func readBuildFlags(cmd *cobra.Command) (f buildFlags, err error) {
	if f.sets, err = keySets(cmd); err != nil {
		return f, err
	}
	files, err := cmd.Flags().GetStringArray("note")
	if err != nil {
		return f, err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return f, fmt.Errorf("--note: %w", err)
		}
		f.notes = append(f.notes, raw)
	}
	f.trusting, err = cmd.Flags().GetBool("trust-store")
	return f, err
}

// build builds the bundle in the way that the flags name.
func (f *buildFlags) build(ctx context.Context, b *control.Bundle) error {
	switch {
	case f.trusting && len(f.sets)+len(f.notes) > 0:
		return usagef("give --trust-store by itself, and --jwks or --note afterwards")
	case f.trusting:
		return b.Publisher().BuildTrusting(ctx)
	case len(f.sets) > 0 && len(f.notes) > 0:
		return usagef("give --jwks first, and --note for a note that was written afterwards")
	case len(f.sets) > 0:
		return b.SetKeySets(ctx, f.sets)
	case len(f.notes) > 0:
		return b.Publisher().Adopt(ctx, f.notes...)
	}
	return b.Publisher().Build(ctx)
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
		if !ok || name == "" {
			return nil, usagef("--jwks %q: write name=file", g)
		}
		if sets[name], err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--jwks: %w", err)
		}
	}
	return sets, nil
}

func lifeFlag(cmd *cobra.Command) {
	cmd.Flags().String("life", "", "How long a signed bundle is good, 10m to 7d; default: as before, at first 24h")
}

// readLife reads --life; 0 if it is not given.
func readLife(cmd *cobra.Command) (l control.Life, err error) {
	s, err := cmd.Flags().GetString("life")
	if err != nil || s == "" {
		return 0, err
	}
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, usagef("--life: %w", err)
	}
	return l, nil
}

// setLife keeps the life of --life, if it is given.
func setLife(cmd *cobra.Command, b *control.Bundle) (control.Life, error) {
	l, err := readLife(cmd)
	if err != nil || l == 0 {
		return 0, err
	}
	return l, b.SetLife(l)
}
