package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/caddymodule"
	"github.com/keystile/keystile/caddymodule/control"
	"github.com/keystile/keystile/core/bundle"
)

func bundleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Builds, inspects, verifies and renews signed bundles",
	}
	cmd.AddCommand(buildCommand(), inspectCommand(), verifyCommand(), renewCommand())
	return cmd
}

func buildCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:   "build [--jwks <name>=<file>]",
		Short: "Builds and signs a bundle from the store and the policy as they are",
		Long: `Builds and signs a bundle from the store and the policy as they are.

Commands that change keys do this by themselves; it is needed after a change of
the policy file. --jwks takes over the public keys of customer tokens: a JSON Web
Key Set, under the name that the policy gives it. It is kept for later builds.`,
		Args: cobra.NoArgs,
	})
	cmd.Flags().StringArray("jwks", nil, "Key set of customer tokens, as name=file")
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		given, err := cmd.Flags().GetStringArray("jwks")
		if err != nil {
			return err
		}
		sets := make(map[string][]byte)
		for _, g := range given {
			name, file, ok := strings.Cut(g, "=")
			if !ok {
				return fmt.Errorf("--jwks %q: write name=file", g)
			}
			if sets[name], err = os.ReadFile(file); err != nil {
				return fmt.Errorf("--jwks: %w", err)
			}
		}
		err = progress(cmd, "building the bundle", func() error {
			if len(sets) > 0 {
				return b.SetKeySets(cmd.Context(), sets)
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

// state is what is in a signed bundle.
type state struct {
	Name          string    `json:"name"`
	Audience      string    `json:"audience"`
	Policy        string    `json:"policy"`
	PolicyVersion int64     `json:"policy_version"`
	PolicyHash    string    `json:"policy_hash"`
	Version       int64     `json:"version"`
	Signed        time.Time `json:"signed"`
	Expires       time.Time `json:"expires"`
	Keys          uint64    `json:"keys"`
	Root          string    `json:"root"`
	Kinds         []string  `json:"kinds"`
	Environments  []string  `json:"environments"`
	Publishers    []string  `json:"publishers"`
	Hosts         []string  `json:"hosts"`
}

func stateOf(b *bundle.Bundle) state {
	s := state{
		Name: b.Note.Name, Audience: b.Note.Audience, Policy: b.Policy.Name, PolicyVersion: b.Note.Version,
		PolicyHash: b.Note.Policy.String(), Version: b.Manifest.Version, Signed: time.UnixMilli(b.Manifest.Version).UTC(),
		Expires: time.UnixMilli(b.Manifest.Expires).UTC(), Keys: b.Manifest.Keys, Root: b.Manifest.Root.String(),
		Kinds: b.Note.Kinds, Environments: b.Note.Environments, Publishers: b.Note.Publishers, Hosts: []string{},
	}
	for _, h := range b.Policy.Hosts {
		s.Hosts = append(s.Hosts, h.Name)
	}
	return s
}

func printState(cmd *cobra.Command, b *control.Bundle, done string) error {
	opened, _, close, err := b.OpenFile()
	if err != nil {
		return err
	}
	defer close()
	s := stateOf(opened)
	return output(cmd, s, func(w io.Writer) {
		fmt.Fprintf(w, "%s bundle %s: %d keys, version %d, expires %s.\n", done, s.Name, s.Keys, s.Version, s.Expires.Format(time.RFC3339))
	})
}

func inspectCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:   "inspect [file]",
		Short: "Shows what is in a signed bundle",
		Args:  cobra.MaximumNArgs(1),
	})
	cmd.RunE = withOpened(func(cmd *cobra.Command, b *bundle.Bundle) error {
		s := stateOf(b)
		return output(cmd, s, func(w io.Writer) {
			fmt.Fprintf(w, "%s\n%s\n", b.Notes.Policy, b.Notes.Manifest)
			fmt.Fprintf(w, "Policy %s, hosts %s.\nSigned %s, expires %s, %d keys.\n", s.Policy, strings.Join(s.Hosts, " "),
				s.Signed.Format(time.RFC3339), s.Expires.Format(time.RFC3339), s.Keys)
		})
	})
	return cmd
}

func verifyCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:   "verify [file]",
		Short: "Verifies a signed bundle: signatures, times and every node of its tree",
		Args:  cobra.MaximumNArgs(1),
	})
	cmd.RunE = withOpened(func(cmd *cobra.Command, b *bundle.Bundle) error {
		if err := b.CheckTime(time.Now(), bundle.DefaultClockSkew, 0); err != nil {
			return err
		}
		keys := 0
		err := progress(cmd, "verifying", func() error {
			return b.Walk(func(*bundle.Record) error {
				keys++
				return nil
			})
		})
		if err != nil {
			return err
		}
		s := stateOf(b)
		return output(cmd, s, func(w io.Writer) {
			fmt.Fprintf(w, "Bundle %s is good: %d keys, version %d, expires %s.\n", s.Name, keys, s.Version, s.Expires.Format(time.RFC3339))
		})
	})
	return cmd
}

func trustFlags(cmd *cobra.Command) *cobra.Command {
	bundleFlag(cmd)
	f := cmd.Flags()
	f.StringArray("signer", nil, "With a file: a policy signer to trust; repeat it")
	f.String("signer-file", "", "With a file: policy signers to trust, one on a line")
	f.String("audience", caddymodule.DefaultAudience, "With a file: the audience that it must be for")
	f.Int("threshold", 1, "With a file: how many of the signers must have signed")
	return cmd
}

// withOpened runs do with the home's bundle, or with a file and the trust that
// flags give.
func withOpened(do func(cmd *cobra.Command, b *bundle.Bundle) error) func(*cobra.Command, []string) error {
	return run(func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return withPublished(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
				opened, _, close, err := b.OpenFile()
				if err != nil {
					return err
				}
				defer close()
				return do(cmd, opened)
			})(cmd, args)
		}
		trust, err := flagTrust(cmd)
		if err != nil {
			return err
		}
		opened, _, close, err := control.OpenFile(args[0], trust)
		if err != nil {
			return err
		}
		defer close()
		return do(cmd, opened)
	})
}

func flagTrust(cmd *cobra.Command) (*bundle.Trust, error) {
	f := cmd.Flags()
	signers, err := f.GetStringArray("signer")
	file, err2 := f.GetString("signer-file")
	audience, err3 := f.GetString("audience")
	threshold, err4 := f.GetInt("threshold")
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return nil, err
	}
	if file != "" {
		more, err := caddymodule.ReadSigners(file)
		if err != nil {
			return nil, err
		}
		signers = append(signers, more...)
	}
	if len(signers) == 0 {
		return nil, errors.New("a file is believed only by its signers: name them with --signer or --signer-file")
	}
	return bundle.NewTrust("", audience, threshold, signers...)
}
