package main

import (
	"context"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The demo runs, twice from one folder, and every line that it prints gives the
// answer that it promises.
func TestDemo(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: install it with `apt-get install curl`")
	}
	home := t.TempDir()
	t.Chdir("../..")
	for range 2 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		d := &demo{home: home}
		err := d.run(ctx, func() {
			defer cancel()
			tries := d.tries()
			if len(tries) < 10 {
				t.Errorf("%d lines to try", len(tries))
			}
			for _, try := range tries {
				out, err := exec.Command("sh", "-c", try.command+` -s -o - -w '\n%{http_code}'`).Output()
				answer := string(out)
				if err != nil || answer[strings.LastIndexByte(answer, '\n')+1:] != strconv.Itoa(try.status) {
					t.Errorf("%s: %v\n%s", try.why, err, answer)
				}
				if try.status == 200 && !strings.Contains(answer, "key ID:      ") {
					t.Errorf("%s: the upstream's answer is not there:\n%s", try.why, answer)
				}
			}
		})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}
