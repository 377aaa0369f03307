"""Jobs: the commands that ask for them, the events that tell of them."""
