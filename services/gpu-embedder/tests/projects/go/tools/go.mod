module example.com/ferry-tools

go 1.22

require example.com/weather v1.2.0
