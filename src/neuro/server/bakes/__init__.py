"""Bakes: runs of batch workflows."""
