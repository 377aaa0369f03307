package fares

func Of(kind string) int { return len(kind) }
