"""The table of presets that administrators gave: all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
)

from neuro.domain.resources import Preset
from neuro.server.database.schema import metadata

log = structlog.get_logger("neuro.jobs")

presets = Table(
    "presets",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("content", Text, nullable=False),  # JSON
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Preset).decode


def kept_presets(connection: Connection) -> list[Preset]:
    """In their order; none where nobody gave any."""
    found = []
    for row in connection.execute(select(presets).order_by(presets.c.position)):
        try:
            found.append(_decode(row.content))
        except msgspec.MsgspecError as error:
            log.error("cannot read a preset", preset=row.name, error=str(error))
    return found


def keep_presets(connection: Connection, new: Sequence[Preset]) -> None:
    """Put these in place of all that there are."""
    connection.execute(delete(presets))
    if new:
        connection.execute(
            insert(presets),
            [
                {"name": one.name, "position": position, "content": _encode(one).decode()}
                for position, one in enumerate(new)
            ],
        )


def lock_presets(connection: Connection, *, is_sqlite: bool) -> None:
    """Let nobody else change them until the transaction is over; SQLite has one writer."""
    if not is_sqlite:
        connection.execute(text("LOCK TABLE presets IN SHARE ROW EXCLUSIVE MODE"))
