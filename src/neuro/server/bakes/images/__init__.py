"""Bake images: what tasks of a bake run, and how it is built."""
