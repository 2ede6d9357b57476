"""Attempts: the tries of a bake, and following one as it goes."""
