package main

import (
	"bytes"
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The example runs, and every line that it prints gives the answer that it
// promises.
func TestExample(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: install it with `apt-get install curl`")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var log bytes.Buffer
	err := run(ctx, &log, func(text string) {
		defer cancel()
		lines := regexp.MustCompile(`(?m)^# (\d+): (.*)\n(curl .*)$`).FindAllStringSubmatch(text, -1)
		if len(lines) < 5 {
			t.Errorf("%d lines to try", len(lines))
		}
		for _, l := range lines {
			out, err := exec.Command("sh", "-c", l[3]+` -s -o - -w '\n%{http_code}'`).Output()
			answer := string(out)
			if err != nil || !strings.HasSuffix(answer, "\n"+l[1]) {
				t.Errorf("%s: %v\n%s", l[2], err, answer)
			}
			if l[2] == "the API learns who calls" && !strings.Contains(answer, "GET /x for key_") {
				t.Errorf("the API was not told:\n%s", answer)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// Envoy has nothing to complain of: not of what the filter may call, nor of a
	// field that is going to be removed.
	complaint := regexp.MustCompile(`\]\[(error|critical)\]|[Dd]eprecated|restricted`)
	for line := range strings.Lines(log.String()) {
		if complaint.MatchString(line) {
			t.Error(line)
		}
	}
	if !strings.Contains(log.String(), "bundle in use") {
		t.Errorf("the log is not seen:\n%s", log.String())
	}
}
