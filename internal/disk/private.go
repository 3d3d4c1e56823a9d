package disk

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// ReadPrivate reads a key's file. It refuses one that anybody but its owner can
// use.
func ReadPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if OpenToOthers(info) {
		return nil, fmt.Errorf("others can read or write %s (mode %04o), and may have done so: replace the key, or if nobody has, `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	return os.ReadFile(path)
}

// OpenToOthers says whether anybody but a file's owner can use it, on systems
// where modes say that.
func OpenToOthers(info fs.FileInfo) bool {
	return runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0
}
