package main

type Config struct{ Port string }

func load(arguments []string) Config { return Config{Port: arguments[0]} }
