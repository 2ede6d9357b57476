"""The table of config files."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    func,
    insert,
    select,
)

from neuro.domain.bakes import ConfigFile
from neuro.server.database.blobs import pack, unpack
from neuro.server.database.damage import reads
from neuro.server.database.schema import Blob, metadata

files = Table(
    "flow_config_files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("bake_id", ForeignKey("flow_bakes.id", ondelete="CASCADE"), nullable=False),
    Column("filename", Text, nullable=False),
    Column("content", Blob, nullable=False),
    Index(None, "bake_id"),
)


def add_file(connection: Connection, file: ConfigFile, content: bytes | None = None) -> None:
    """Add a file; ``content`` is its own where it is packed already.

    Raises IntegrityError without its bake.
    """
    connection.execute(
        insert(files),
        {
            "id": file.id,
            "bake_id": file.bake_id,
            "filename": file.filename,
            "content": pack(file.content) if content is None else content,
        },
    )


def get_file(connection: Connection, file_id: str) -> ConfigFile | None:
    row = connection.execute(select(files).where(files.c.id == file_id)).one_or_none()
    return None if row is None else _file(row)


@reads("file")
def _file(row: Any) -> ConfigFile:
    return ConfigFile(
        id=row.id,
        bake_id=row.bake_id,
        filename=row.filename,
        content=unpack(row.content, str),
    )


def count_of_bake(connection: Connection, bake_id: str) -> int:
    statement = select(func.count()).select_from(files).where(files.c.bake_id == bake_id)
    return connection.execute(statement).scalar_one()
