"""Flow files: a project's jobs, described in ``.neuro/`` and run with ``neuro-flow``."""
