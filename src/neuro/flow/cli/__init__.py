"""The ``neuro-flow`` command line: a table of commands over ``neuro.flow`` and ``neuro.cli``."""
