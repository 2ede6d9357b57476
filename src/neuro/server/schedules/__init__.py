"""Schedules: bakes that the clock starts."""
