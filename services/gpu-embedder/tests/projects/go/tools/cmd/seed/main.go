package main

import (
	"flag"

	"example.com/ferry/tickets/fares"
	"example.com/ferry-tools/seeds"
	"example.com/ferry/internal/nowhere"
	"example.com/weather/radar"
)

func main() { flag.Parse(); nowhere.Go(seeds.All(), fares.Of("x"), radar.Image()) }
