"""HTTP in, commands out; live events."""
