"""The Python client and the pharos command."""
