package command

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
	"github.com/keystile/keystile/policies"
)

func initCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "init <name> [--policy <name|file>] [--audience <name>] [--host <environment>[,<environment>]=<host>]... [--directory <path>] [--life <time>] [--signer <verifier key>]... [--threshold <k>]",
		SuggestFor: []string{"new", "setup", "start", "make"},
		Short:      "Makes a bundle with its signing keys",
		Long: `Makes a bundle: its folder with a policy, an active and a standby policy
signer and a publisher, and the first signed file, without keys.

--policy is a shipped policy (` + strings.Join(policies.Names(), ", ") + `) or a file in the
language that policies/README.md describes. --host replaces the policy's host
names, with the port if it is not 443; repeat it for several:

    --host live=api.example.com --host test=sandbox.example.com
    --host live,test=api.example.com       keys of both work on the one host
    --host api.example.com                 where the policy binds no host, or
                                           has one environment

Move the standby key to a safe place: edges trust it too, so that the active one
can be replaced.

--directory also writes the bundle, at every change, node by node into a directory
that a web server can serve.

--life is how long a signed bundle is good unless it is renewed, 10m to 7d.

--signer names a policy signer whose key is elsewhere ("policy key" makes one), and
--threshold how many of them have to sign: then no policy signer is made here, and
nothing is published until they have signed what "policy note" writes.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().String("policy", "", "Shipped policy or file; default: the bundle's name")
	cmd.Flags().String("audience", bundle.DefaultAudience, "Group of edges that the bundle is for")
	cmd.Flags().StringArray("host", nil, "Host names to serve instead of the policy's")
	cmd.Flags().String("directory", "", "Directory for the bundle node by node")
	cmd.Flags().StringArray("signer", nil, "Policy signer whose key is elsewhere")
	cmd.Flags().Int("threshold", 1, "How many of the signers have to sign")
	lifeFlag(cmd)
	cmd.RunE = withHome(func(cmd *cobra.Command, args []string, h *control.Home) error {
		n, err := newBundle(cmd, args[0])
		if err != nil {
			return err
		}
		b, err := h.Init(cmd.Context(), n)
		if err != nil {
			return err
		}
		warnOfLimits(cmd, limited(b.Policy)...)
		return output(cmd, map[string]any{
			"name": b.Name, "policy": b.Policy.Name, "audience": b.Audience, "file": b.File(), "signers": b.Signers,
			"signer_file": b.TrustFile(),
		}, func(w io.Writer) { printMade(w, b, n) })
	})
	return cmd
}

// newBundle reads the flags of init.
func newBundle(cmd *cobra.Command, name string) (n control.NewBundle, err error) {
	f := cmd.Flags()
	from, err := f.GetString("policy")
	if err != nil {
		return n, err
	}
	n.Name = name
	if n.Policy, n.File, err = readPolicy(cmp.Or(from, name)); err != nil {
		return n, err
	}
	if n.Audience, err = f.GetString("audience"); err != nil {
		return n, err
	}
	if n.Hosts, err = readHosts(cmd); err != nil {
		return n, err
	}
	if err := checkUnbound(n.File, n.Policy, n.Hosts); err != nil {
		return n, err
	}
	if n.Signers, err = f.GetStringArray("signer"); err != nil {
		return n, err
	}
	if n.Threshold, err = f.GetInt("threshold"); err != nil {
		return n, err
	}
	if n.Threshold < 1 || len(n.Signers) > 0 && n.Threshold > len(n.Signers) {
		return n, usagef("--threshold %d: give at least 1, and at most as many as there are signers (%d)", n.Threshold, len(n.Signers))
	}
	if len(n.Signers) == 0 && n.Threshold != 1 {
		return n, usagef("--threshold is for signers that --signer names")
	}
	if n.Directory, err = absolute(cmd, "directory"); err != nil {
		return n, err
	}
	n.Life, err = readLife(cmd)
	return n, err
}

// printMade says what was made, and what to do next.
func printMade(w io.Writer, b *control.Bundle, n control.NewBundle) {
	fmt.Fprintf(w, "Made bundle %s (policy %s, audience %s).\n\n", b.Name, b.Policy.Name, b.Audience)
	if len(n.Signers) > 0 {
		fmt.Fprintf(w, "It is published once %d of its policy signers have signed: see `caddy keystile policy note --help`.\n", n.Threshold)
	} else {
		fmt.Fprintf(w, "Keep standby-signer.key in %s offline: edges trust it too.\n", filepath.Dir(b.File()))
	}
	fmt.Fprintf(w, "For the global options of a Caddyfile:\n\n\tkeystile {\n\t\tbundle %s {\n\t\t\tfile        %s\n\t\t\tsigner_file %s\n", b.Name, b.File(), b.TrustFile())
	// Without these an edge would believe one signer alone, or another audience.
	if n.Threshold > 1 {
		fmt.Fprintf(w, "\t\t\tthreshold   %d\n", n.Threshold)
	}
	if n.Audience != bundle.DefaultAudience {
		fmt.Fprintf(w, "\t\t\taudience    %s\n", n.Audience)
	}
	fmt.Fprint(w, "\t\t}\n\t}\n\n")
	if !b.Policy.NamesHosts() && len(b.Policy.Environments) > 1 {
		fmt.Fprintf(w, "Keys of all environments (%s) work on every host. To bind them, make the bundle with --host %s=HOST for each.\n\n",
			strings.Join(b.Policy.Environments, ", "), b.Policy.Environments[0])
	}
	fmt.Fprintf(w, "Make a key: caddy keystile keys create --bundle %s --kind %s --environment %s\n", b.Name, b.Policy.Kinds[0].Name, b.Policy.Environments[0])
}

// absolute is a flag's path from the root, or "".
func absolute(cmd *cobra.Command, flag string) (string, error) {
	path, err := cmd.Flags().GetString(flag)
	if err != nil || path == "" {
		return "", err
	}
	return filepath.Abs(path)
}

// readPolicy reads a shipped policy by name, or a file.
func readPolicy(from string) (document []byte, file string, err error) {
	if slices.Contains(policies.Names(), from) {
		document, err = policies.Policy(from)
		return document, from + "/policy.yaml", err
	}
	document, err = os.ReadFile(from)
	if err != nil {
		return nil, "", fmt.Errorf("policy %q is not shipped (%s), and there is no such file: %w", from, strings.Join(policies.Names(), ", "), err)
	}
	return document, from, nil
}
