package command

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/control"
)

func renewCommand() *cobra.Command {
	cmd := bundleFlag(&cobra.Command{
		Use:        "renew [--every <time>] [--life <time>]",
		SuggestFor: []string{"refresh", "extend", "update", "resign"},
		Short:      "Signs the published keys again, with the publisher's key and the file alone",
		Long: `Signs the published keys again, with the publisher's key and the file alone: it goes
on without the key store and without the policy's file. If the store is gone, cannot
be read or lacks what is published, that is said on standard error. If the store has
changes that a crash kept from being published, they are published.

The bundle keeps its life unless --life gives another, which is kept. With --every
a renewal that fails is told and tried again within a minute.`,
		Args: cobra.NoArgs,
	})
	lengthFlag(cmd, "every", 0, "Go on, once in every so long")
	lifeFlag(cmd)
	cmd.RunE = withHome(func(cmd *cobra.Command, _ []string, h *control.Home) error {
		every, err := readLength(cmd, "every")
		if err != nil {
			return err
		}
		r := renewer{cmd: cmd, home: h}
		if err := r.begin(every); err != nil {
			return err
		}
		return r.run(every)
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
	return r.home.OpenWithoutPolicy(name)
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
			return nil // the renewal itself says so, and may find the directory
		}
		defer source.Close()
		life = opened.Life()
	}
	if every < 0 || every == 0 && r.cmd.Flags().Changed("every") || every > life/2 {
		return usagef("--every %s: more than none, and at most %s, so that the bundle does not expire between", every, life/2)
	}
	return nil
}

// run renews once, or once in every so long until it is told to end. What fails the
// first time ends it.
func (r *renewer) run(every time.Duration) error {
	for {
		err := r.renew()
		if every == 0 || err != nil && !r.renewed {
			return err
		}
		wait := every
		if err != nil {
			wait = min(every, time.Minute)
			fmt.Fprintf(r.cmd.ErrOrStderr(), "The renewal failed, and is tried again in %s: %v\n", wait, err)
		}
		select {
		case <-r.cmd.Context().Done():
			return nil
		case <-time.After(wait):
		}
	}
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
	if err := progress(r.cmd, "signing", func() error { return b.Publisher().Renew(r.cmd.Context(), r.life) }); err != nil {
		return err
	}
	r.renewed = true
	if before != nil {
		r.late(before, now)
	}
	r.warn(b.Publisher().CheckStore(r.cmd.Context()))
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
