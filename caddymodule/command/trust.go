package command

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
)

func trustFlags(cmd *cobra.Command) *cobra.Command {
	bundleFlag(cmd)
	f := cmd.Flags()
	f.StringArray("signer", nil, "With a file: a policy signer to trust; repeat it")
	f.String("signer-file", "", "With a file: policy signers to trust, one on a line")
	f.String("audience", bundle.DefaultAudience, "With a file: the audience that it must be for")
	f.Int("threshold", 1, "With a file: how many of the signers must have signed")
	return cmd
}

// withOpened runs do with the home's bundle, or with a file or directory and the
// trust that flags give.
func withOpened(do func(cmd *cobra.Command, b *bundle.Bundle) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		b, source, err := openNamed(cmd, args...)
		if err != nil {
			return err
		}
		defer source.Close()
		return do(cmd, b)
	}
}

// openNamed opens the bundle in the file or directory path[0], if that is given,
// with the trust that flags give; else the home's bundle.
func openNamed(cmd *cobra.Command, path ...string) (b *bundle.Bundle, source *disk.Source, err error) {
	if len(path) > 0 {
		trust, err := flagTrust(cmd)
		if err != nil {
			return nil, nil, err
		}
		return disk.OpenBundle(path[0], trust)
	}
	err = withoutPolicy(func(_ *cobra.Command, _ []string, home *control.Bundle) (err error) {
		b, source, err = home.OpenFile()
		return err
	})(cmd, nil)
	return b, source, err
}

// ownSigners says where the signers of the home's bundles are, if there are any.
func ownSigners(cmd *cobra.Command) string {
	dir, err := cmd.Flags().GetString("home")
	if err != nil {
		return ""
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "signers.txt"))
	if err != nil || len(files) == 0 {
		return ""
	}
	return "; those of bundles made here are " + strings.Join(files, ", ")
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
		more, err := disk.ReadSigners(file)
		if err != nil {
			return nil, err
		}
		signers = append(signers, more...)
	}
	if len(signers) == 0 {
		return nil, usagef("a file is believed only by its signers: name them with --signer or --signer-file%s", ownSigners(cmd))
	}
	return bundle.NewTrust("", audience, threshold, signers...)
}
