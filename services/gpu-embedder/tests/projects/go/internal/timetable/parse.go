package timetable

import "time"

func parse(text string) time.Time { t, _ := time.Parse(time.RFC3339, text); return t }
