package publish

import (
	"context"
	"io"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/internal/disk"
)

// File is a packed file. It is written beside its place, and then put there.
type File string

// Stage implements [Sink].
func (path File) Stage(_ context.Context, s *Signed) (Staged, error) {
	var nodes bundle.Nodes
	if err := s.Nodes(nodes.Add); err != nil {
		return nil, err
	}
	staged, err := disk.Stage(string(path), 0o644, func(w io.Writer) error {
		return bundle.WritePack(w, s.Notes, s.Compiled, &nodes)
	})
	if err != nil {
		return nil, err
	}
	return stagedFile{staged}, nil
}

type stagedFile struct{ *disk.Staged }

func (f stagedFile) Place(context.Context) error { return f.Staged.Place() }

// Directory holds the bundle node by node, as a static origin serves it. Nothing
// of it is written before its place: a bundle is in force by its manifest, which
// is written last.
type Directory string

// Stage implements [Sink].
func (dir Directory) Stage(_ context.Context, s *Signed) (Staged, error) {
	return stagedDirectory{string(dir), s}, nil
}

type stagedDirectory struct {
	dir    string
	signed *Signed
}

func (d stagedDirectory) Place(context.Context) error {
	s := d.signed
	content := disk.Content{Notes: s.Notes, Compiled: s.Compiled, Tree: s.Tree, Nodes: s.Nodes}
	_, err := content.WriteDir(d.dir)
	return err
}

func (stagedDirectory) Discard() {}
