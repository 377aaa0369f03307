package timetable_test

import (
	"fmt"

	"example.com/ferry/internal/timetable"
)

func ExampleNext() { fmt.Println(timetable.Next("x")) }
