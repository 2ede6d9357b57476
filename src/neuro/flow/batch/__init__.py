"""Batch workflows: planned, submitted as bakes, driven to their end."""
