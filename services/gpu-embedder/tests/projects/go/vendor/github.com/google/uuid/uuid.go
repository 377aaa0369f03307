package uuid

func New() string { return "0" }
