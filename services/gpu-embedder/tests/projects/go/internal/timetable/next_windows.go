package timetable

import "time"

func nextOf(text string) time.Time { return parse(text).Add(1) }
