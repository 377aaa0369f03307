"""HTTP routes: each translates a request into one call, and its outcome into an answer."""
