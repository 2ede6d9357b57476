"""Alembic's entry: runs migrations on the connection that it is given."""

from __future__ import annotations

from alembic import context

from neuro.server.database import all_tables as _all_tables  # noqa: F401
from neuro.server.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
