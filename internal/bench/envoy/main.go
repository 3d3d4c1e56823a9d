// Command envoy compares what Envoy spends on a request over HTTPS: bare, with its
// own api_key_auth, and with the filter, for one key and for many, with and
// without an upstream behind it. It is one Envoy of one worker with a listener for
// each, in rounds that alternate between them.
//
// It prints Envoy's CPU time per request and how much that is over bare, the time
// that a request takes, and requests per second. Absolute figures are those of
// this machine and this moment; the differences are what counts.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/internal/disk"
	"github.com/keystile/keystile/internal/testing/address"
	"github.com/keystile/keystile/internal/testing/certificate"
	"github.com/keystile/keystile/internal/testing/envoy"
	"github.com/keystile/keystile/policies"
	"github.com/keystile/keystile/policies/table"
)

const (
	connections = 16
	host        = "api.vinr.com"
)

func main() {
	rounds := flag.Int("rounds", 5, "rounds")
	perRound := flag.Int("requests", 20_000, "requests of a listener in a round")
	many := flag.Int("keys", 100_000, "keys of the larger bundle")
	used := flag.Int("used", 10_000, "keys of it that are asked for")
	flag.Parse()
	if err := run(*rounds, *perRound, *many, *used); err != nil {
		fmt.Fprintln(os.Stderr, "envoy:", err)
		os.Exit(1)
	}
}

// site is one listener.
type site struct {
	name    string
	address string
	keys    []string
	cpu     []float64 // µs a request, of each round
	times   []time.Duration
	rate    []float64
}

// bundleOf signs a bundle of n keys.
func bundleOf(n, used int) (f *table.Fixture, b *bundle.Bundle, keys []string, err error) {
	p, err := policies.Compile("vinr", compile.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	records := make([]bundle.Record, n)
	for i := range records {
		secret, err := credential.Generate("rk", "live")
		if err != nil {
			return nil, nil, nil, err
		}
		records[i] = bundle.Record{
			Digest: secret.Digest(), KeyID: "rk_" + credential.RandomText(16), Kind: "restricted", Environment: "live",
			Tenant: fmt.Sprintf("acct_%d", i%1000), Status: bundle.Active, Scopes: []string{"payments:read", "payouts:read", "refunds:write"},
		}
		if len(keys) < used {
			keys = append(keys, secret.Reveal())
		}
	}
	f, err = table.Sign(p, records)
	if err != nil {
		return nil, nil, nil, err
	}
	b, err = f.Open()
	return f, b, keys, err
}

func run(rounds, perRound, many, used int) error {
	dir, err := os.MkdirTemp("", "envoy-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := certificate.Write(dir); err != nil {
		return err
	}
	module, err := envoy.Module()
	if err != nil {
		return err
	}
	small, _, smallKeys, err := bundleOf(1, 1)
	if err != nil {
		return err
	}
	large, largeBundle, largeKeys, err := bundleOf(many, used)
	if err != nil {
		return err
	}
	tree := filepath.Join(dir, "origin")
	if _, err := disk.WriteDir(tree, largeBundle, large.Policy.Encode()); err != nil {
		return err
	}
	origin := httptest.NewServer(http.FileServer(http.Dir(tree)))
	defer origin.Close()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	defer upstream.Close()

	config := func(f *table.Fixture, source envoy.Object) string {
		source["signers"], source["audience"] = []string{f.Signer}, table.Audience
		raw, _ := json.Marshal(envoy.Object{"bundles": envoy.Object{"vinr": source}})
		return string(raw)
	}
	inline := envoy.Filter(module, config(small, envoy.Object{"inline": base64.StdEncoding.EncodeToString(small.Pack)}))
	over := envoy.Filter(module, config(large, envoy.Object{"origins": []envoy.Object{{"cluster": "origin", "authority": "origin.test"}}}))
	native := envoy.Object{"name": "envoy.filters.http.api_key_auth", "typed_config": envoy.Object{
		"@type":       "type.googleapis.com/envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
		"credentials": []envoy.Object{{"key": smallKeys[0], "client": "one"}},
		"key_sources": []envoy.Object{{"header": "X-Api-Key"}},
	}}
	direct := []envoy.Object{{"match": envoy.Object{"prefix": ""}, "direct_response": envoy.Object{"status": 200, "body": envoy.Object{"inline_string": "ok"}}}}
	var sites []*site
	var listeners []envoy.Object
	for _, s := range []struct {
		name   string
		keys   []string
		routes []envoy.Object
		filter []envoy.Object
	}{
		{"bare", smallKeys, direct, nil},
		{"api_key_auth", smallKeys, direct, []envoy.Object{native}},
		{"keystile, 1 key", smallKeys, direct, []envoy.Object{inline}},
		{fmt.Sprintf("keystile, %d keys", many), largeKeys, direct, []envoy.Object{over}},
		{"bare, proxied", smallKeys, envoy.To("upstream"), nil},
		{"api_key_auth, proxied", smallKeys, envoy.To("upstream"), []envoy.Object{native}},
		{"keystile, 1 key, proxied", smallKeys, envoy.To("upstream"), []envoy.Object{inline}},
	} {
		free, err := address.Free()
		if err != nil {
			return err
		}
		sites = append(sites, &site{name: s.name, address: free, keys: s.keys})
		listeners = append(listeners, envoy.Listener(s.name, free, dir, s.routes, append(s.filter, envoy.Router()), nil))
	}
	for _, workers := range []int{1, 2, 4} {
		for _, with := range []bool{false, true} {
			if err := starting(dir, workers, with, inline, direct); err != nil {
				return err
			}
		}
	}
	process, err := envoy.Start(dir, envoy.Object{"static_resources": envoy.Object{
		"listeners": listeners,
		"clusters":  []envoy.Object{envoy.Cluster("upstream", upstream.Listener.Addr().String()), envoy.Cluster("origin", origin.Listener.Addr().String())},
	}}, 1, nil)
	if err != nil {
		process.Close()
		return err
	}
	defer process.Close()
	time.Sleep(2 * time.Second) // the origin's bundle
	for _, s := range sites {
		if err := s.burst(process.Process.Pid, s.keys, len(s.keys), false); err != nil { // every key is known
			return fmt.Errorf("%s: %w\n%s", s.name, err, strings.Join(process.Lines(), "\n"))
		}
	}
	for range rounds {
		for _, s := range sites {
			if err := s.burst(process.Process.Pid, s.keys, perRound, true); err != nil {
				return fmt.Errorf("%s: %w\n%s", s.name, err, strings.Join(process.Lines(), "\n"))
			}
		}
	}
	report(sites)
	fmt.Printf("VmRSS at the end %d MB\n", rss(process.Process.Pid)>>10)
	return nil
}

// starting says how long Envoy takes to start, and what memory it has then.
func starting(dir string, workers int, with bool, filter envoy.Object, routes []envoy.Object) error {
	free, err := address.Free()
	if err != nil {
		return err
	}
	filters := []envoy.Object{envoy.Router()}
	if with {
		filters = append([]envoy.Object{filter}, filters...)
	}
	begin := time.Now()
	process, err := envoy.Start(dir, envoy.Object{"static_resources": envoy.Object{
		"listeners": []envoy.Object{envoy.Listener("start", free, dir, routes, filters, nil)},
	}}, workers, nil)
	if err != nil {
		process.Close()
		return err
	}
	took := time.Since(begin)
	time.Sleep(time.Second)
	fmt.Printf("%d workers, keystile %v: start %.1f s, VmRSS %d MB\n", workers, with, took.Seconds(), rss(process.Process.Pid)>>10)
	return process.Close()
}

func report(sites []*site) {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "\tCPU µs\tover bare\tp50 µs\tp99 µs\trequests/s\t")
	base := 0.0
	for _, s := range sites {
		cpu := slices.Min(s.cpu)
		if strings.HasPrefix(s.name, "bare") {
			base = cpu
		}
		slices.Sort(s.times)
		fmt.Fprintf(out, "%s\t%.1f\t%+.1f\t%d\t%d\t%.0f\t\n", s.name, cpu, cpu-base,
			s.times[len(s.times)/2].Microseconds(), s.times[len(s.times)*99/100].Microseconds(), slices.Max(s.rate))
	}
	out.Flush()
}

// burst sends n requests over several connections and measures.
func (s *site) burst(pid int, keys []string, n int, measured bool) error {
	before, begin := cpuTime(pid), time.Now()
	var group sync.WaitGroup
	var mu sync.Mutex
	var failed error
	parts := min(connections, n)
	for part := range parts {
		group.Go(func() {
			times, err := s.send(keys, part, parts, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			if measured {
				s.times = append(s.times, times...)
			}
		})
	}
	group.Wait()
	if measured {
		s.cpu = append(s.cpu, float64((cpuTime(pid)-before).Nanoseconds())/1000/float64(n))
		s.rate = append(s.rate, float64(n)/time.Since(begin).Seconds())
	}
	return failed
}

func (s *site) send(keys []string, part, parts, n int) (times []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := (&tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	var request bytes.Buffer
	for i := part; i < n; i += parts {
		k := keys[rand.IntN(len(keys))]
		if n == len(keys) {
			k = keys[i]
		}
		request.Reset()
		fmt.Fprintf(&request, "GET /v1/payments/pay_1234567890 HTTP/1.1\r\nHost: %s\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Api-Key: %s\r\n\r\n", host, k)
		begin := time.Now()
		if _, err := conn.Write(request.Bytes()); err != nil {
			return nil, err
		}
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 200 {
			return nil, fmt.Errorf("%s: %s, %v", response.Status, body, err)
		}
		times = append(times, time.Since(begin))
	}
	return times, nil
}

// cpuTime is what a process has used: fields 14 and 15 of its stat, in hundredths
// of a second.
func cpuTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rss is a process's resident memory in KiB.
func rss(pid int) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(raw))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize() / 1024
}
