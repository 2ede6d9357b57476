"""``neuro storage``: one module per command (cli-surface, sections 2 and 3.3)."""
