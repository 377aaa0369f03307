"""Every shape that the tables have had, oldest first."""
