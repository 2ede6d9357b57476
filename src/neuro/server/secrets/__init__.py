"""Secrets: values that jobs get and nobody is shown."""
