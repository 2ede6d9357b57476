"""The Docker Engine API, as far as the command line and the engine both speak it."""
