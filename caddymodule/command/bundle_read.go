package command

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
)

// summary is what is in a signed bundle.
type summary struct {
	Name          string    `json:"name"`
	Audience      string    `json:"audience"`
	Policy        string    `json:"policy"`
	PolicyVersion int64     `json:"policy_version"`
	PolicyHash    string    `json:"policy_hash"`
	Version       int64     `json:"version"`
	Signed        time.Time `json:"signed"`
	Expires       time.Time `json:"expires"`
	Life          string    `json:"life"`
	Keys          uint64    `json:"keys"`
	Root          string    `json:"root"`
	Kinds         []string  `json:"kinds"`
	Environments  []string  `json:"environments"`
	Publishers    []string  `json:"publishers"`
	Hosts         []string  `json:"hosts"`
}

func summaryOf(b *bundle.Bundle) summary {
	s := summary{
		Name: b.PolicyNote.Name, Audience: b.PolicyNote.Audience, Policy: b.Policy.Name, PolicyVersion: b.PolicyNote.Version,
		PolicyHash: b.PolicyNote.PolicyHash.String(), Version: b.Manifest.Version, Signed: time.UnixMilli(b.Manifest.Version).UTC(),
		Expires: time.UnixMilli(b.Manifest.Expires).UTC(), Life: b.Life().String(), Keys: b.Manifest.Keys, Root: b.Manifest.Root.String(),
		Kinds: b.PolicyNote.Kinds, Environments: b.PolicyNote.Environments, Publishers: b.PolicyNote.Publishers, Hosts: []string{},
	}
	for _, h := range b.Policy.Hosts {
		s.Hosts = append(s.Hosts, h.Name)
	}
	return s
}

func inspectCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "inspect [file]",
		SuggestFor: []string{"show", "info", "list", "ls", "cat", "dump"},
		Short:      "Shows what is in a signed bundle",
		Args:       cobra.MaximumNArgs(1),
	})
	cmd.RunE = withOpened(func(cmd *cobra.Command, b *bundle.Bundle) error {
		s := summaryOf(b)
		return output(cmd, s, func(w io.Writer) {
			fmt.Fprintf(w, "%s\n%s\n", b.Notes.PolicyNote, b.Notes.Manifest)
			fmt.Fprintf(w, "Policy %s, hosts %s.\nSigned %s, expires %s, %d keys.\n", s.Policy, strings.Join(s.Hosts, " "),
				s.Signed.Format(time.RFC3339), s.Expires.Format(time.RFC3339), s.Keys)
			fmt.Fprintln(w, lifeOf(b, time.Now()))
		})
	})
	return cmd
}

// lifeOf says how much of a bundle's life is left, and what to do about it.
func lifeOf(b *bundle.Bundle, now time.Time) string {
	left := b.Left(now).Round(time.Second)
	if left <= 0 {
		return fmt.Sprintf("It has expired, and every request is denied: give `caddy keystile bundle renew --every 5m --bundle %s`.", b.PolicyNote.Name)
	}
	s := fmt.Sprintf("%s of its life of %s are left", left, b.Life())
	if b.Due(now) == bundle.Fresh {
		return s + "."
	}
	return s + ": is `caddy keystile bundle renew --every 5m` running?"
}

func verifyCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "verify [file]",
		SuggestFor: []string{"check", "validate", "test"},
		Short:      "Verifies a signed bundle: signatures, times and every node of its tree",
		Args:       cobra.MaximumNArgs(1),
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
		s := summaryOf(b)
		return output(cmd, s, func(w io.Writer) {
			fmt.Fprintf(w, "Bundle %s is good: %d keys, version %d, expires %s.\n", s.Name, keys, s.Version, s.Expires.Format(time.RFC3339))
		})
	})
	return cmd
}

func diffCommand() *cobra.Command {
	cmd := trustFlags(&cobra.Command{
		Use:        "diff <before> [after]",
		SuggestFor: []string{"compare", "changes"},
		Short:      "Compares two signed bundles, key by key; after is the home's bundle unless it is given",
		Args:       cobra.RangeArgs(1, 2),
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		before, source, err := openNamed(cmd, args[0])
		if err != nil {
			return err
		}
		defer source.Close()
		after, source2, err := openNamed(cmd, args[1:]...)
		if err != nil {
			return err
		}
		defer source2.Close()
		var d *bundle.Difference
		if err := progress(cmd, "comparing", func() (err error) {
			d, err = bundle.Diff(before, after)
			return err
		}); err != nil {
			return err
		}
		return printDifference(cmd, before, after, d)
	}
	return cmd
}

// difference is what [diffCommand] prints.
type difference struct {
	Before  summary  `json:"before"`
	After   summary  `json:"after"`
	Nodes   int      `json:"new_nodes"`
	Bytes   int      `json:"new_bytes"`
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Changed []string `json:"changed"`
}

func printDifference(cmd *cobra.Command, before, after *bundle.Bundle, d *bundle.Difference) error {
	out := difference{summaryOf(before), summaryOf(after), d.Nodes, d.Bytes, []string{}, []string{}, []string{}}
	for _, c := range d.Changes {
		switch {
		case c.Before == nil:
			out.Added = append(out.Added, c.After.KeyID)
		case c.After == nil:
			out.Removed = append(out.Removed, c.Before.KeyID)
		default:
			out.Changed = append(out.Changed, c.After.KeyID)
		}
	}
	return output(cmd, out, func(w io.Writer) {
		fmt.Fprintf(w, "Version %d to %d: ", out.Before.Version, out.After.Version)
		if out.Before.PolicyVersion != out.After.PolicyVersion {
			fmt.Fprintf(w, "policy version %d to %d, ", out.Before.PolicyVersion, out.After.PolicyVersion)
		}
		fmt.Fprintf(w, "%d keys added, %d removed, %d changed; %d new nodes of %d bytes.\n",
			len(out.Added), len(out.Removed), len(out.Changed), out.Nodes, out.Bytes)
		for _, c := range d.Changes {
			switch {
			case c.Before == nil:
				fmt.Fprintf(w, "+ %s %s\n", c.After.KeyID, c.After.Status)
			case c.After == nil:
				fmt.Fprintf(w, "- %s %s\n", c.Before.KeyID, c.Before.Status)
			default:
				fmt.Fprintf(w, "~ %s %s, was %s\n", c.After.KeyID, c.After.Status, c.Before.Status)
			}
		}
	})
}
