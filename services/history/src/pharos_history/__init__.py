"""The read side: jobs, as the events tell them, in SQL."""
