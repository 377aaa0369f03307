"""Keys that an admin issues."""
