package keystile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// wrongWords are those that docs/words.md lists as wrong, with the right one.
func wrongWords(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("docs/words.md")
	if err != nil {
		t.Fatal(err)
	}
	wrong := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || strings.HasPrefix(cells[1], "-") || strings.TrimSpace(cells[1]) == "word" {
			continue
		}
		for not := range strings.SplitSeq(cells[3], ",") {
			wrong[strings.TrimSpace(not)] = strings.TrimSpace(cells[1])
		}
	}
	if len(wrong) < 20 {
		t.Fatalf("docs/words.md lists %d words", len(wrong))
	}
	return wrong
}

// spaced is an identifier as words: "MinVersion", "min_version" and "min-version" are
// "min version".
func spaced(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '_' || r == '-':
			r = ' '
		case unicode.IsUpper(r) && i > 0:
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Each thing has one word, in exported names, flags, metrics and documents.
func TestOneWordForEachThing(t *testing.T) {
	wrong := wrongWords(t)
	any := regexp.MustCompile(`\b(` + strings.Join(slices.Sorted(maps.Keys(wrong)), "|") + `)s?\b`)
	look := func(where, text string) {
		for _, m := range any.FindAllStringSubmatch(strings.ToLower(text), -1) {
			t.Errorf("%s: %q: the word is %q", where, m[1], wrong[m[1]])
		}
	}
	oneWord := regexp.MustCompile(`^[a-z]+([_-][a-z]+)*$`)
	documents := 0
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "var") {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		if filepath.Ext(path) == ".md" && path != filepath.Join("docs", "words.md") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			documents++
			look(path, string(text))
		}
		return nil
	})
	if err != nil || documents < 8 {
		t.Fatalf("%d documents: %v", documents, err)
	}
	for _, files := range packages(t) {
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.Ident:
					if n.IsExported() {
						look(path, spaced(n.Name))
					}
				case *ast.BasicLit: // flags, options and metrics are one word of literals
					if s := strings.Trim(n.Value, "\"`"); n.Kind == token.STRING && oneWord.MatchString(s) {
						look(path, spaced(s))
					}
				}
				return true
			})
		}
	}
}
