package compile

import (
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/shape"
)

// demandDoc is what a route's method asks of a scoped key: a scope, several of
// them, "none", or {own_key: PARAMETER}.
type demandDoc struct {
	scopes texts
	ownKey text
}

func (d *demandDoc) UnmarshalYAML(n ast.Node) error {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		var own struct {
			OwnKey text `yaml:"own_key"`
		}
		err := yaml.NodeToValue(n, &own, yaml.Strict())
		d.ownKey = own.OwnKey
		return err
	}
	return d.scopes.UnmarshalYAML(n)
}

func (c *compiler) routes() error {
	for _, doc := range c.doc.Routes {
		r, err := c.route(doc)
		if err != nil {
			return err
		}
		for _, other := range c.p.Routes {
			if other.Name == r.Name {
				return doc.Name.Errorf("route %q is given twice", r.Name)
			}
		}
		c.p.Routes = append(c.p.Routes, r)
		// The router finds conflicts; asking it now gives them a place.
		if err := policy.CheckRoutes(c.p.Routes); err != nil {
			return doc.Name.Errorf("%s", err)
		}
	}
	return nil
}

func (c *compiler) route(doc routeDoc) (r policy.Route, err error) {
	if !name.MatchString(doc.Name.s) {
		return r, doc.Name.Errorf("route name %q: use lower-case letters, digits, dash and underscore", doc.Name.s)
	}
	r = policy.Route{
		Name: doc.Name.s, Patterns: doc.Path.strings(), Public: doc.Public, CORS: doc.CORS,
		TenantParam: doc.Tenant.s, Token: doc.Token, OnlyUnlimited: doc.Unrestricted,
	}
	if len(r.Patterns) == 0 {
		return r, doc.Name.Errorf("route %q has no path", r.Name)
	}
	for _, path := range doc.Path {
		if err := policy.CheckWildcards(path.s); err != nil {
			return r, path.Errorf("path %q: %s", path.s, err)
		}
	}
	r.Methods = shape.AllMethods
	if len(doc.Methods) > 0 {
		r.Methods = 0
	}
	for _, m := range doc.Methods {
		if r.Methods, err = addMethod(r.Methods, m, m.s); err != nil {
			return r, err
		}
	}
	if doc.Public {
		if len(doc.Kinds)+len(doc.Scopes) > 0 || doc.Token || doc.Unrestricted || doc.Tenant.s != "" {
			return r, doc.Name.Errorf("route %q is public: it asks for no key, so it can demand nothing of one", r.Name)
		}
		return r, nil
	}
	if r.Kinds, err = c.kindSet(doc.Kinds); err != nil {
		return r, err
	}
	return r, c.demands(doc, &r)
}

func addMethod(set shape.MethodSet, at text, name string) (shape.MethodSet, error) {
	m, known := shape.ParseMethod(name)
	if !known || name == "HEAD" {
		return set, at.Errorf("method %q: use GET (which brings HEAD), POST, PUT, PATCH, DELETE or OPTIONS", name)
	}
	return set.With(m), nil
}

// demands fills in what scoped keys need. A method that no line names is met by
// no scope.
func (c *compiler) demands(doc routeDoc, r *policy.Route) error {
	scoped := false
	for i, k := range c.p.Kinds {
		scoped = scoped || k.Scoped && r.Kinds.Has(i)
	}
	if !scoped && len(doc.Scopes) > 0 {
		return doc.Name.Errorf("route %q names scopes, and none of its kinds is scoped", r.Name)
	}
	var named shape.MethodSet
	for _, e := range doc.Scopes {
		demand, err := c.demand(e.key, e.value)
		if err != nil {
			return err
		}
		if e.key.s == "any" {
			e.key.s = strings.Join(shape.MethodNames[:], " ")
		}
		for name := range strings.FieldsSeq(e.key.s) {
			m, known := shape.ParseMethod(name)
			if !known || name == "HEAD" {
				return e.key.Errorf("%q: name methods with spaces between them, or any", e.key.s)
			}
			if named.Has(m) {
				return e.key.Errorf("method %s has two lines", name)
			}
			named = named.With(m)
			if r.Methods.Has(m) {
				r.Demands[m] = demand
			}
		}
	}
	return nil
}

func (c *compiler) demand(key text, doc demandDoc) (d policy.Demand, err error) {
	if doc.ownKey.s != "" {
		return policy.Demand{OwnKey: doc.ownKey.s}, nil
	}
	if len(doc.scopes) == 1 && doc.scopes[0].s == "none" {
		return policy.Demand{Free: true}, nil
	}
	if len(doc.scopes) == 0 {
		return d, key.Errorf("name the scopes that %q needs, or none", key.s)
	}
	for _, s := range doc.scopes {
		accept, err := c.accepted(s)
		if err != nil {
			return d, err
		}
		d.Scopes = append(d.Scopes, policy.ScopeDemand{Scope: s.s, Accept: accept})
	}
	return d, nil
}
