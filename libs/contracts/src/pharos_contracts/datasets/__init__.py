"""Datasets: which generation of an index is live."""
