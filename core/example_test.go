package core_test

import (
	"fmt"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/policies"
)

// Why a request without an API key is denied.
func ExampleVerifier_Explain() {
	p, err := policies.Compile("default", noOptions)
	if err != nil {
		panic(err)
	}
	now := time.Now().UnixMilli()
	publisher, err := bundletest.NewPublisher(p, "shop", "default", now)
	if err != nil {
		panic(err)
	}
	b, err := publisher.Open(now, nil)
	if err != nil {
		panic(err)
	}
	v, err := core.New(core.Config{})
	if err != nil {
		panic(err)
	}
	if err := v.Activate(b); err != nil {
		panic(err)
	}

	e := v.Explain(&core.Request{TLS: true, Method: "GET", Authority: "api.test", Path: "/", Headers: core.Lines{{Name: "Accept", Value: "*/*"}}})
	last := e.Steps[len(e.Steps)-1]
	fmt.Println(last.Name, last.Reason, e.Decision.Status)
	for _, c := range last.Compared {
		fmt.Println(c.Holds, c.What)
	}
	// Output:
	// credential missing 401
	// true nothing in the URL looks like an API key
	// true nothing in the cookies looks like an API key
	// false lines where the policy wants the API key (Authorization: Bearer): 0, and one is needed
}
