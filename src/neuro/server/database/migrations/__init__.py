"""Alembic migrations: one module a step."""
