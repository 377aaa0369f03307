package weather

import "example.com/weather/radar"

func Forecast() string { return "rain" + string(radar.Image()) }
