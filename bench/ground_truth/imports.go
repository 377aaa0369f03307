// Every import of every Go file below a folder, as go/parser reads it: its file, the package of the file, the path that it names.
package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	filepath.WalkDir(os.Args[1], func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if file == nil {
			return nil
		}
		fmt.Printf("%s\t%s\t\n", path, file.Name.Name)
		for _, one := range file.Imports {
			name, _ := strconv.Unquote(one.Path.Value)
			fmt.Printf("%s\t%s\t%s\n", path, file.Name.Name, name)
		}
		return nil
	})
}
