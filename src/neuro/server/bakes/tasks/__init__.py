"""Tasks: what an attempt runs, one record for each node of its graph."""
