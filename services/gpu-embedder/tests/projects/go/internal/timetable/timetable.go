// Package timetable knows when a ferry leaves.
package timetable

import (
	"time"

	"example.com/ferry/internal/store"
)

// Next is the next departure.
func Next(port string) time.Time { return nextOf(store.Open(port).Get(port)) }
