package timetable

import (
	"testing"

	"example.com/ferry/internal/testkit"
)

func TestParse(t *testing.T) { testkit.Equal(t, parse("x").Year(), 1) }
