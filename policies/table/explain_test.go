package table_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/policy"
	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

// explained explains every exchange that it decides.
type explained struct {
	*table.Core
	t       *testing.T
	secrets []string
	steps   map[string]int // how often the decision ended there
}

func (h *explained) Do(x *table.Exchange) (*table.Result, error) {
	result, err := h.Core.Do(x)
	if err != nil {
		return nil, err
	}
	name := x.Row.Name
	e, d := h.Explain(x), h.Decide(x)
	if got, want := comparable(e.Decision), comparable(d); !reflect.DeepEqual(got, want) {
		h.t.Errorf("%s: explained as %+v, decided as %+v", name, got, want)
	}
	reason := x.Want.Reason
	if x.Want.Parser { // a server refuses it; core gives some reason
		reason = result.Reason
	}
	h.look(name, &e, reason)
	return result, nil
}

// look sees that e ends with reason, where its last comparison does not hold.
func (h *explained) look(name string, e *core.Explanation, reason string) {
	last := e.Steps[len(e.Steps)-1]
	h.steps[last.Name]++
	if ends := last.Reason.String(); ends != reason && (ends != policy.OK.String() || e.Decision.Outcome != core.Respond) {
		h.t.Errorf("%s: the last step, %s, says %s, and the row says %s", name, last.Name, ends, reason)
	}
	at := -1
	for i, step := range e.Steps {
		next := slices.Index([]string{"transport", "bundle", "shape", "route", "credential", "key", "customer_token", "permission"}, step.Name)
		if next <= at || len(step.Compared) == 0 {
			h.t.Errorf("%s: step %q is out of order, or compared nothing", name, step.Name)
		}
		at = next
		for j, c := range step.Compared {
			ended := last.Reason != policy.OK && i == len(e.Steps)-1 && j == len(step.Compared)-1
			if c.Holds == ended || strings.HasPrefix(c.What, "the step ended with") {
				h.t.Errorf("%s: %s: %q, %v", name, step.Name, c.What, c.Holds)
			}
			for _, secret := range h.secrets {
				if strings.Contains(c.What, secret) {
					h.t.Errorf("%s: %s shows a key or a token", name, step.Name) // R74
				}
			}
		}
	}
}

// comparable is a decision without what differs each time.
func comparable(d core.Decision) map[string]any {
	header := slices.DeleteFunc(slices.Clone(d.Header), func(h core.Header) bool { return h.Name == "Request-Id" })
	return map[string]any{
		"outcome": d.Outcome, "reason": d.Reason, "status": d.Status, "header": header, "body": string(d.Body), "close": d.Close, "set": d.Set,
		"key": d.Key, "customer": d.Customer, "route": d.Route, "scope": d.RequiredScope, "webSocket": d.WebSocket(), "policy": d.Policy(),
	}
}

// For each row of each table the explanation is the decision, and its last step the
// row's reason.
func TestExplained(t *testing.T) {
	steps := make(map[string]int)
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			document, err := policies.Policy(name)
			if err != nil {
				t.Fatal(err)
			}
			source, err := policies.Table(name)
			if err != nil {
				t.Fatal(err)
			}
			tab, err := table.Load("conformance.yaml", source)
			if err != nil {
				t.Fatal(err)
			}
			f, err := tab.Issue("policy.yaml", document)
			if err != nil {
				t.Fatal(err)
			}
			host, err := table.NewCore(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := table.Run(tab, f, &explained{host, t, f.Secrets(), steps}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, s := range []string{"transport", "shape", "route", "credential", "key", "customer_token", "permission"} {
		if steps[s] == 0 {
			t.Errorf("no row ends at the step %s", s)
		}
	}
}
