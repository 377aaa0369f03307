"""Repositories that are indexed again and again."""
