package disk

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/keystile/keystile/core/bundle"
)

// ReadSigners reads a file of verifier keys, one on a line; lines that begin with
// # are comments. It refuses a private key, as the file and in the place of its path,
// and holds none in an error.
func ReadSigners(path string) (out []string, err error) {
	if bundle.HoldsPrivateKey(path) {
		return nil, fmt.Errorf("the path of a file is expected: %w", bundle.ErrPrivateKey)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && strings.Count(path, "+") >= 2 {
		return nil, errors.New("the path of a file is expected, and this looks like a key: name the file signers.txt")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if bundle.HoldsPrivateKey(line) {
			return nil, fmt.Errorf("%s holds a private key, which is not shown here, and edges need verifier keys: name signers.txt instead, which lies beside it. "+
				"Keep the private key where nobody else can read it; if somebody could, replace it (`caddy keystile bundle rotate`)", path)
		}
		if line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}
