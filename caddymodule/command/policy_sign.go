package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/internal/disk"
)

func keyCommand() *cobra.Command {
	return &cobra.Command{
		Use:        "key <name> <file>",
		SuggestFor: []string{"keygen", "keys", "new", "create", "generate"},
		Short:      "Makes a policy signer's key, and prints the verifier key that edges trust",
		Args:       cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			verifier, err := control.NewSigningKey(args[1], args[0])
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already: a signing key is never overwritten", args[1])
			}
			if err != nil {
				return err
			}
			return output(cmd, map[string]string{"name": args[0], "file": args[1], "verifier": verifier}, func(w io.Writer) {
				fmt.Fprintln(w, verifier)
			})
		},
	}
}

func noteCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "note",
		SuggestFor: []string{"draft", "notes"},
		Short:      "Prints the policy note that the policy signers have to sign",
		Long: `Prints the policy note that the policy signers have to sign so that the policy as
it is now comes into force. With signers whose keys are elsewhere:

    caddy keystile policy note >note.txt                      here
    caddy keystile policy sign note.txt --key mine.key >a.note   each of them
    caddy keystile bundle build --note a.note --note b.note   here

Until then keys are published under the policy note in force.`,
		Args: cobra.NoArgs,
	})
	cmd.RunE = withBundle(func(cmd *cobra.Command, _ []string, b *control.Bundle) error {
		text, err := b.Publisher().Draft(cmd.Context())
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	})
	return cmd
}

func signCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "sign <note> --key <file> [--policy <name|file>] [--host [<environment>=]<host>]... [--jwks <name>=<file>]...",
		SuggestFor: []string{"approve", "signature"},
		Short:      "Signs a policy note with a policy signer's key, and prints it",
		Long: `Signs a policy note with a policy signer's key, and prints it with the signatures
that it had. Read what it says before you sign: standard error sums it up.

The note names the policy by a hash. With --policy, and the hosts and key sets that
the bundle was given, the policy is compiled here, and the note is signed only if
it is that one.`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.String("key", "", "The policy signer's key file")
	f.String("policy", "", "The policy that the note has to be for")
	f.StringArray("host", nil, "With --policy: host names, as given to init")
	f.StringArray("jwks", nil, "With --policy: key set of customer tokens, as name=file")
	f.String("out", "", "Write here and not to standard output; may be the note itself")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return signNote(cmd, args[0]) }
	return cmd
}

// signNote signs the note in a file as the flags say.
func signNote(cmd *cobra.Command, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	n, err := bundle.ParsePolicyNote(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	key, err := signerKey(cmd)
	if err != nil {
		return err
	}
	if err := checkNotePolicy(cmd, n); err != nil {
		return err
	}
	signed, err := bundle.SignPolicyNote(n, key)
	if err != nil {
		return err
	}
	if strings.Contains(string(raw), "\n\n") { // others have signed before
		if signed, err = bundle.MergeNotes(raw, signed); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	printSigned(cmd, n, key)
	return writeOut(cmd, signed)
}

// signerKey is the key of --key.
func signerKey(cmd *cobra.Command) (*control.SigningKey, error) {
	path, err := cmd.Flags().GetString("key")
	if err != nil {
		return nil, err
	}
	if path == "" {
		return nil, usagef("--key is missing: name the file of a policy signer's key")
	}
	return control.ReadSigningKey(path)
}

// printSigned sums up on standard error what was signed.
func printSigned(cmd *cobra.Command, n *bundle.PolicyNote, key *control.SigningKey) {
	fmt.Fprintf(cmd.ErrOrStderr(), "Signed by %s: policy %s of bundle %s for %s, version %d; kinds %s, environments %s; publishers %s.\n",
		key.Name(), n.PolicyHash, n.Name, n.Audience, n.Version, strings.Join(n.Kinds, " "), strings.Join(n.Environments, " "), strings.Join(n.Publishers, " "))
}

// writeOut writes a signed note into the file of --out, or to standard output.
func writeOut(cmd *cobra.Command, signed []byte) error {
	out, err := cmd.Flags().GetString("out")
	if err != nil {
		return err
	}
	if out != "" {
		if err := keepKey(out); err != nil {
			return err
		}
		return disk.ReplaceBytes(out, 0o644, signed)
	}
	_, err = cmd.OutOrStdout().Write(signed)
	return err
}

// checkNotePolicy compiles the policy that flags name, if any, and says so if the
// note is for another one.
func checkNotePolicy(cmd *cobra.Command, n *bundle.PolicyNote) error {
	from, err := cmd.Flags().GetString("policy")
	if err != nil || from == "" {
		return err
	}
	document, file, err := readPolicy(from)
	if err != nil {
		return err
	}
	hosts, err := readHosts(cmd)
	if err != nil {
		return err
	}
	sets, err := keySets(cmd)
	if err != nil {
		return err
	}
	p, err := compile.Compile(file, document, compile.Options{Hosts: hosts, KeySets: sets})
	if err != nil {
		return err
	}
	if hash := bundle.HashOf(p.Encode()); hash != n.PolicyHash {
		return fmt.Errorf("the note is for the policy %s, and %s with these hosts and key sets is %s: it is not signed", n.PolicyHash, from, hash)
	}
	return nil
}
