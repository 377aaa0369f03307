package main

import (
	"testing"

	. "example.com/ferry/internal/testkit"
)

func TestLoad(t *testing.T) { Equal(t, load([]string{"a"}).Port, "a") }
