package command

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/core/shape"
)

// readHosts reads --host: the hosts of each environment, and under "" those that are
// bound to none.
func readHosts(cmd *cobra.Command) (map[string][]string, error) {
	list, err := cmd.Flags().GetStringArray("host")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	hosts := make(map[string][]string)
	for _, s := range list {
		environments, host, ok := strings.Cut(s, "=")
		if !ok {
			environments, host = "", s
		}
		if err := compile.CheckHost(host); err != nil {
			return nil, usagef("--host %q: %w", s, err)
		}
		for environment := range strings.SplitSeq(environments, ",") {
			if ok && environment == "" {
				return nil, usagef("--host %q: an environment has no name: write live=%s, or live,test=%s", s, host, host)
			}
			if slices.Contains(hosts[environment], host) {
				return nil, usagef("--host %q: the host is given twice", s)
			}
			hosts[environment] = append(hosts[environment], host)
		}
	}
	return hosts, nil
}

// checkUnbound refuses hosts that are bound to no environment where keys of several
// would work on them, as test keys on the live host, unless the policy's own document
// means that.
func checkUnbound(file string, document []byte, hosts map[string][]string) error {
	unbound := hosts[""]
	if len(hosts) == 0 {
		return nil
	}
	own, err := compile.Compile(file, document, compile.Options{})
	if err != nil {
		return err
	}
	if len(unbound) == 0 {
		return checkBound(file, document, own, hosts)
	}
	if own.NamesHosts() && slices.ContainsFunc(own.Hosts, func(h policy.Host) bool { return several(h.Environments) }) {
		return nil
	}
	p, err := compile.Compile(file, document, compile.Options{Hosts: hosts})
	if own.NamesHosts() && err != nil {
		return usagef("--host %s is bound to no environment, and policy %q binds each to hosts of its own: write %s", unbound[0], own.Name, apart(own, unbound[0]))
	}
	if err != nil {
		return err
	}
	environments, _ := p.HostEnvironments(unbound[0])
	if !several(environments) {
		return nil
	}
	return usagef("--host %s: keys of the environments %s would all work there, so that a test key opens the live host. "+
		"Write %s; or, if that is meant, --host %s=%s",
		unbound[0], strings.Join(p.Environments, " and "), apart(p, unbound[0]), strings.Join(p.Environments, ","), unbound[0])
}

// checkBound refuses hosts of environments that the policy own does not have, and hosts
// for some of its environments where the others have none.
func checkBound(file string, document []byte, own *policy.Policy, hosts map[string][]string) error {
	for _, environment := range slices.Sorted(maps.Keys(hosts)) {
		if !slices.Contains(own.Environments, environment) {
			return usagef("--host %s=%s: policy %q has no environment %q: it has %s",
				environment, hosts[environment][0], own.Name, environment, strings.Join(own.Environments, ", "))
		}
	}
	if _, err := compile.Compile(file, document, compile.Options{Hosts: hosts}); err == nil {
		return nil
	}
	for _, environment := range own.Environments {
		if hosts[environment] == nil {
			return usagef("--host gives the environment %s none, so that its keys would work nowhere: add --host %s=HOST", environment, environment)
		}
	}
	return nil // what else is wrong is said where it is made
}

func several(environments policy.Set) bool { return environments&(environments-1) != 0 }

// apart are the flags that give each environment a host of its own.
func apart(p *policy.Policy, host string) string {
	_, domain, ok := strings.Cut(host, ".")
	if _, err := netip.ParseAddr(shape.HostName(host)); !ok || err == nil {
		domain = "example.com"
	}
	var flags []string
	for i, environment := range p.Environments {
		own := host
		if environment == "test" {
			own = "sandbox." + domain
		} else if i > 0 {
			own = environment + "." + domain
		}
		flags = append(flags, fmt.Sprintf("--host %s=%s", environment, own))
	}
	return strings.Join(flags, " ")
}
