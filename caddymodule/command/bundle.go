package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
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

func buildCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "build [--jwks <name>=<file>]... [--note <file>]... [--life <time>] [--trust-store]",
		Short: "Builds and signs a bundle from the store and the policy as they are",
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
		trusting, err := cmd.Flags().GetBool("trust-store")
		if err != nil {
			return err
		}
		if _, err := setLife(cmd, b); err != nil {
			return err
		}
		err = progress(cmd, "building the bundle", func() error {
			switch {
			case trusting && len(sets)+len(notes) > 0:
				return errors.New("give --trust-store by itself, and --jwks or --note afterwards")
			case trusting:
				return b.BuildTrusting(cmd.Context())
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
		return 0, fmt.Errorf("--life: %w", err)
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

func renewCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "renew [--every <time>] [--life <time>]",
		Short: "Signs the published keys again, with the publisher's key and the file alone",
		Long: `Signs the published keys again, with the publisher's key and the file alone: it goes
on without the key store and without the policy's file. If the store is gone, cannot
be read or lacks what is published, that is said on standard error. If the store has
changes that a crash kept from being published, they are published.

The bundle keeps its life unless --life gives another, which is kept. With --every
a renewal that fails is told and tried again within a minute.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().Duration("every", 0, "Go on, once in every so long")
	lifeFlag(cmd)
	cmd.RunE = withHome(func(cmd *cobra.Command, _ []string, h *control.Home) error {
		every, err := cmd.Flags().GetDuration("every")
		if err != nil {
			return err
		}
		r := renewer{cmd: cmd, home: h}
		if err := r.begin(every); err != nil {
			return err
		}
		for {
			err := r.renew()
			if every == 0 || err != nil && !r.renewed {
				return err
			}
			wait := every
			if err != nil {
				wait = min(every, time.Minute)
				fmt.Fprintf(cmd.ErrOrStderr(), "The renewal failed, and is tried again in %s: %v\n", wait, err)
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(wait):
			}
		}
	})
	return cmd
}

// renewer renews a bundle again and again.
type renewer struct {
	cmd     *cobra.Command
	home    *control.Home
	life    control.Life
	renewed bool   // at least once
	warned  string // last
}

// open opens the bundle as it is now: its signers may have been replaced.
func (r *renewer) open() (*control.Bundle, error) {
	name, err := r.cmd.Flags().GetString("bundle")
	if err != nil {
		return nil, err
	}
	return r.home.Published(name)
}

// begin reads the life, and refuses to renew less than twice in it.
func (r *renewer) begin(every time.Duration) error {
	b, err := r.open()
	if err != nil {
		return err
	}
	if r.life, err = setLife(r.cmd, b); err != nil {
		return err
	}
	life := time.Duration(r.life)
	if life == 0 {
		opened, source, err := b.OpenFile()
		if err != nil {
			return err
		}
		defer source.Close()
		life = opened.Life()
	}
	if every < 0 || every > life/2 {
		return fmt.Errorf("--every %s: at most %s, so that the bundle does not expire between", every, life/2)
	}
	return nil
}

func (r *renewer) renew() error {
	b, err := r.open()
	if err != nil {
		return err
	}
	now := time.Now()
	before, source, err := b.OpenFile()
	if err == nil { // else the directory may do
		source.Close()
	}
	if err := progress(r.cmd, "signing", func() error { return b.Renew(r.cmd.Context(), r.life) }); err != nil {
		return err
	}
	r.renewed = true
	if before != nil {
		r.late(before, now)
	}
	r.warn(b.CheckStore(r.cmd.Context()))
	return printState(r.cmd, b, "Renewed")
}

// late says so if the bundle of before has been renewed late.
func (r *renewer) late(before *bundle.Bundle, now time.Time) {
	if before.Due(now) != bundle.Fresh {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "Warning: %s. Renew it more often, with --every 5m.\n", remaining(before, now))
	}
}

// warn says once what is wrong with the store.
func (r *renewer) warn(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != r.warned {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "Warning: the bundle is renewed without the key store: %s.\n", text)
	}
	r.warned = text
}

// remaining says how much of a bundle's life is left.
func remaining(b *bundle.Bundle, now time.Time) string {
	left := b.Left(now)
	if left <= 0 {
		return fmt.Sprintf("the bundle had expired %s before", -left.Round(time.Second))
	}
	return fmt.Sprintf("%s of the bundle's %s were left", left.Round(time.Second), b.Life())
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
