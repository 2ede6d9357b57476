"""``neuro job``: one command per module."""
