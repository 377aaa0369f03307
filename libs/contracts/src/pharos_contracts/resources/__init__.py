"""Repositories whose pushes start jobs."""
