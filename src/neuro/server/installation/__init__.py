"""This installation as clients see it: where everything is, what it offers, how it is."""
