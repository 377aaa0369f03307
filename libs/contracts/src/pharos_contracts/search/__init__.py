"""Search: the question and its answer."""
