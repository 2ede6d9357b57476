"""Alembic's entry: runs migrations on the connection that it is given."""

from __future__ import annotations

from alembic import context

from neuro.server.access import tables as _access  # noqa: F401
from neuro.server.database import identity as _identity  # noqa: F401
from neuro.server.database.schema import metadata
from neuro.server.flows import tables as _flows  # noqa: F401
from neuro.server.jobs import tables as _jobs  # noqa: F401

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
