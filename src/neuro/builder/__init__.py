"""Builds images inside a job: a program of the platform's own, behind the fence of that job."""
