"""History: what the read side is asked and what it answers."""
