"""Flow files: a project's jobs and pipelines, described in ``.neuro/`` and run with ``neuro-flow``."""
