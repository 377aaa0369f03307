module example.com/ferry/tickets

go 1.22
