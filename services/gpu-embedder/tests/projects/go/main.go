package main

import (
	"fmt"
	"os"

	"example.com/ferry/internal/timetable"
	_ "example.com/ferry/internal/drivers/sqlite"
	"example.com/ferry/tickets"
	wx "example.com/weather"
	"github.com/google/uuid"
)

func main() {
	config := load(os.Args)
	fmt.Println(uuid.New(), timetable.Next(config.Port), tickets.Sell("adult"), wx.Forecast())
}
