"""The table of schedules."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from neuro.server.database.schema import Moment, metadata

schedules = Table(
    "flow_schedules",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", ForeignKey("flow_projects.id", ondelete="CASCADE"), nullable=False),
    Column("batch", String(255), nullable=False),
    # Whose rights its bakes have.
    Column("owner", String(64), nullable=False),
    Column("cron", String(255), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("overlap", String(16), nullable=False),
    Column("catch_up", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("next_at", Moment, nullable=True),
    Column("last_at", Moment, nullable=True),
    Column("last_bake_id", String(64), nullable=True),
    Column("message", Text, nullable=True),
    # The whole request, packed: what its bakes are made of.
    Column("request", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "batch"),
    Index(None, "next_at"),
)
