package caddymodule

import (
	"slices"
	"sync"
)

// living are the guards of the configurations that are loaded. While one configuration
// takes another's place a bundle has two, and the later one counts: by it a guard finds
// the one whose place it takes.
var living register

type register struct {
	mu     sync.Mutex
	guards []*guard
}

func (r *register) add(g *guard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guards = append(r.guards, g)
}

func (r *register) remove(g *guard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guards = slices.DeleteFunc(r.guards, func(other *guard) bool { return other == g })
}

// find returns the latest guard of a bundle, or nil.
func (r *register) find(name string) (found *guard) {
	r.each(func(g *guard) {
		if g.name == name {
			found = g
		}
	})
	return found
}

// each calls use with the latest guard of each bundle.
func (r *register) each(use func(*guard)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]bool)
	for _, g := range slices.Backward(r.guards) {
		if !seen[g.name] {
			seen[g.name] = true
			use(g)
		}
	}
}
