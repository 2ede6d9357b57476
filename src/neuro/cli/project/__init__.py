"""``neuro project``: new projects from templates."""
