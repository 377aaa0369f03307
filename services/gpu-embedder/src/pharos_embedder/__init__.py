"""Source to vectors, and search over them."""
