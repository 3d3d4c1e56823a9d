package disk

import (
	"bufio"
	"os"
	"strings"
)

// ReadSigners reads a file of verifier keys, one on a line; lines that begin with
// # are comments.
func ReadSigners(path string) (out []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, lines.Err()
}
