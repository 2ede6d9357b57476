"""The command line ``neuro-flow``."""
