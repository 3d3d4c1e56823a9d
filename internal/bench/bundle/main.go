// Command bundle measures large bundles: how long they take to build and sign,
// how large they are, and what a fresh process spends until it has answered for
// one key, on memory and on the first use of each key.
//
// Absolute figures are those of this machine and this moment. Bytes for each key
// and records in a leaf should stay level from size to size.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keystile/keystile/core"
	"github.com/keystile/keystile/core/bundle"
	"github.com/keystile/keystile/core/bundle/bundletest"
	"github.com/keystile/keystile/core/credential"
	"github.com/keystile/keystile/core/policy/compile"
	"github.com/keystile/keystile/policies"
)

const (
	audience = "bench"
	tenants  = 1000
	asked    = 20_000 // keys whose first use is timed
	starts   = 21     // fresh processes
)

func main() {
	sizes := flag.String("keys", "1,300000,1000000,3000000", "sizes to measure, the first to compare memory with")
	child := flag.String("open", "", "open this file and answer, as a fresh process")
	flag.Parse()
	err := error(nil)
	if *child != "" {
		err = answer(*child, flag.Arg(0), flag.Arg(1))
	} else {
		err = run(*sizes)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(sizes string) error {
	dir, err := os.MkdirTemp("", "bundle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "keys\tbuild, sign\twrite\tbytes a key\tin a leaf\topen, answer\tprocess\tRssAnon\tmore\tfirst use\tp50\tp99\t")
	base := 0
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		m, err := measure(dir, n)
		if err != nil {
			return err
		}
		if base == 0 {
			base = m.rss
		}
		fmt.Fprintf(out, "%d\t%.2f s\t%.2f s\t%.1f\t%.1f\t%.2f ms\t%.1f ms\t%.1f MB\t%+.1f MB\t%.1f µs\t%.1f µs\t%.1f µs\t\n",
			n, m.build.Seconds(), m.write.Seconds(), m.bytes, m.fill, ms(m.answer), ms(m.process),
			mb(m.rss), mb(m.rss-base), us(m.mean), us(m.p50), us(m.p99))
		out.Flush()
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
func mb(kib int) float64         { return float64(kib) / 1024 }

// measured is one size's outcome.
type measured struct {
	build, write    time.Duration
	bytes, fill     float64
	answer, process time.Duration // medians
	rss             int           // KiB
	mean, p50, p99  time.Duration
}

func measure(dir string, n int) (m measured, err error) {
	file := filepath.Join(dir, "bench.keystile")
	keys, signer, err := m.publish(file, n)
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(file+".keys", []byte(strings.Join(keys, "\n")), 0o600); err != nil {
		return m, err
	}
	var answers, processes []time.Duration
	var rss []int
	for range starts {
		begin := time.Now()
		self := exec.Command(os.Args[0], "-open", file, signer, keys[mathrand.IntN(len(keys))])
		out, err := self.Output()
		if err != nil {
			return m, fmt.Errorf("a fresh process: %w", err)
		}
		processes = append(processes, time.Since(begin))
		var took time.Duration
		var kib int
		if _, err := fmt.Sscan(string(out), &took, &kib); err != nil {
			return m, err
		}
		answers, rss = append(answers, took), append(rss, kib)
	}
	m.answer, m.process, m.rss = median(answers), median(processes), median(rss)
	self := exec.Command(os.Args[0], "-open", file, signer, "")
	out, err := self.Output()
	if err != nil {
		return m, fmt.Errorf("first uses: %w", err)
	}
	_, err = fmt.Sscan(string(out), &m.mean, &m.p50, &m.p99)
	return m, err
}

func median[T cmp.Ordered](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

// publish writes a bundle of n keys and returns some of the keys, and its policy
// signer's verifier key.
func (m *measured) publish(file string, n int) (keys []string, signer string, err error) {
	p, err := policies.Compile("vinr", compile.Options{})
	if err != nil {
		return nil, "", err
	}
	records := make([]bundle.Record, n)
	scopes := []string{"payments:read", "payouts:read", "refunds:write"}
	for i := range records {
		secret, err := credential.Generate("rk", "live")
		if err != nil {
			return nil, "", err
		}
		records[i] = bundle.Record{
			Digest: secret.Digest(), KeyID: "rk_" + credential.RandomText(16), Kind: "restricted", Environment: "live",
			Tenant: fmt.Sprintf("acct_%d", i%tenants), Status: bundle.Active, Scopes: scopes, Expires: time.Now().Add(24 * time.Hour).Unix(),
		}
		if len(keys) < asked {
			keys = append(keys, secret.Reveal())
		}
	}
	begin := time.Now()
	version := begin.UnixMilli()
	publisher, err := bundletest.NewPublisher(p, "bench", audience, version)
	if err != nil {
		return nil, "", err
	}
	signed, err := publisher.Sign(version, records)
	if err != nil {
		return nil, "", err
	}
	m.build = time.Since(begin)
	begin = time.Now()
	f, err := os.Create(file)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := signed.Pack(w); err != nil {
		return nil, "", err
	}
	if err := w.Flush(); err != nil {
		return nil, "", err
	}
	m.write = time.Since(begin)
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	leaves, err := countLeaves(publisher, signed)
	m.bytes, m.fill = float64(info.Size())/float64(n), float64(n)/float64(leaves)
	return keys, publisher.Policy.Key, err
}

func countLeaves(publisher *bundletest.Publisher, signed *bundle.Signed) (leaves int, err error) {
	trust, err := publisher.Trust()
	if err != nil {
		return 0, err
	}
	b, err := signed.Open(trust)
	if err != nil {
		return 0, err
	}
	err = b.Nodes(func(_ bundle.Hash, node []byte) error {
		if node[0] == 2 {
			leaves++
		}
		return nil
	})
	return leaves, err
}

// answer opens file and asks for key, and prints how long that took from the
// beginning of main and what anonymous memory the process has. Without a key it
// asks for each of the keys beside the file once, and prints what a first use
// takes: mean, median and 99th percentile.
func answer(file, signer, key string) error {
	begin := time.Now()
	trust, err := bundle.NewTrust("bench", audience, 1, signer)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	pack, err := bundle.OpenPack(f, info.Size())
	if err != nil {
		return err
	}
	b, err := bundle.Open(pack.Notes, pack.Compiled, pack, trust)
	if err != nil {
		return err
	}
	v, err := core.New(core.Config{})
	if err != nil {
		return err
	}
	if err := v.Activate(b); err != nil {
		return err
	}
	if key != "" {
		if d := v.Verify(request(key)); d.Outcome != core.Allow {
			return fmt.Errorf("the key is denied: %v %w", d.Reason, d.Err)
		}
		took := time.Since(begin)
		kib, err := rssAnon()
		fmt.Println(int64(took), kib)
		return err
	}
	raw, err := os.ReadFile(file + ".keys")
	if err != nil {
		return err
	}
	var total time.Duration
	var all []time.Duration
	keys := strings.Split(string(raw), "\n")
	for round := range 2 { // the first brings the file into the page cache
		all, total = all[:0], 0
		if round == 1 {
			if v, err = core.New(core.Config{}); err != nil {
				return err
			}
			if b, err = bundle.Open(pack.Notes, pack.Compiled, pack, trust); err != nil {
				return err
			}
			if err := v.Activate(b); err != nil {
				return err
			}
		}
		for _, k := range keys {
			r := request(k)
			begin := time.Now()
			d := v.Verify(r)
			took := time.Since(begin)
			if d.Outcome != core.Allow {
				return fmt.Errorf("a key is denied: %v %w", d.Reason, d.Err)
			}
			all, total = append(all, took), total+took
		}
	}
	slices.Sort(all)
	fmt.Println(int64(total)/int64(len(all)), int64(all[len(all)/2]), int64(all[len(all)*99/100]))
	return nil
}

func request(key string) *core.Request {
	return &core.Request{
		TLS: true, SNI: "api.vinr.com", Method: "GET", Authority: "api.vinr.com", Path: "/v1/payments/pay_1234567890",
		Headers: core.Lines{{Name: "X-Api-Key", Value: key}},
	}
}

// rssAnon is the process's anonymous memory in KiB.
func rssAnon() (int, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			return strconv.Atoi(strings.Fields(string(rest))[0])
		}
	}
	return 0, fmt.Errorf("no RssAnon in /proc/self/status")
}
