//go:build ignore

// A program beside the package, run by hand.
package main

import (
	"os"

	"example.com/ferry/internal/timetable"
)

func main() { os.Stdout.WriteString(timetable.Next("x").String()) }
