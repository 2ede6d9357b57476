"""``neuro config``: one command per module."""
