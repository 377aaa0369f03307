module example.com/ferry

go 1.22

require (
	example.com/ferry/tickets v0.0.0
	example.com/weather v1.2.0
	github.com/google/uuid v1.6.0
)

replace example.com/ferry/tickets => ./tickets

replace (
	example.com/weather v1.2.0 => ./forks/weather
)
