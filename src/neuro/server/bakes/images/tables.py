"""The table of bake images."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    String,
    Table,
    Text,
    UniqueConstraint,
    insert,
    select,
    update,
)

from neuro.domain.bakes import BakeImage, ImageStatus
from neuro.server.database.blobs import pack, unpack
from neuro.server.database.damage import Listed, reads, sound_or_none
from neuro.server.database.schema import Blob, metadata

images = Table(
    "flow_bake_images",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("bake_id", ForeignKey("flow_bakes.id", ondelete="CASCADE"), nullable=False),
    Column("ref", String(1024), nullable=False),
    Column("status", String(16), nullable=False),
    Column("yaml_defs", Blob, nullable=False),
    Column("context_on_storage", Text, nullable=True),
    Column("dockerfile_rel", Text, nullable=True),
    Column("builder_job_id", String(255), nullable=True),
    UniqueConstraint("bake_id", "ref"),
)


def add_image(connection: Connection, image: BakeImage) -> None:
    """Add an image. Raises IntegrityError for a ref that is there, or without its bake."""
    connection.execute(
        insert(images),
        {
            "id": image.id,
            "bake_id": image.bake_id,
            "ref": image.ref,
            "status": image.status.value,
            "yaml_defs": pack(image.yaml_defs),
            "context_on_storage": image.context_on_storage,
            "dockerfile_rel": image.dockerfile_rel,
            "builder_job_id": image.builder_job_id,
        },
    )


def change_image(connection: Connection, image: BakeImage) -> None:
    """Write what can change of an image."""
    connection.execute(
        update(images)
        .where(images.c.id == image.id)
        .values(status=image.status.value, builder_job_id=image.builder_job_id)
    )


def get_image(connection: Connection, image_id: str, *, locked: bool = False) -> BakeImage | None:
    """An image; ``locked`` holds it until the transaction ends."""
    statement = select(images).where(images.c.id == image_id)
    if locked:
        statement = statement.with_for_update()
    row = connection.execute(statement).one_or_none()
    return None if row is None else _image(row)


def by_ref(connection: Connection, bake_id: str, ref: str) -> BakeImage | None:
    row = connection.execute(
        select(images).where(images.c.bake_id == bake_id, images.c.ref == ref)
    ).one_or_none()
    return None if row is None else _image(row)


def list_images(
    connection: Connection, bake_id: str, *, page: int, after: Listed[str, BakeImage] | None
) -> list[Listed[str, BakeImage]]:
    """At most ``page`` images of a bake by ref, behind ``after``."""
    statement = select(images).where(images.c.bake_id == bake_id)
    statement = statement.order_by(images.c.ref).limit(page)
    if after is not None:
        statement = statement.where(images.c.ref > after.place)
    rows = connection.execute(statement)
    return [Listed(row.ref, sound_or_none(row, _image)) for row in rows]


@reads("image")
def _image(row: Any) -> BakeImage:
    return BakeImage(
        id=row.id,
        bake_id=row.bake_id,
        ref=row.ref,
        status=ImageStatus(row.status),
        yaml_defs=unpack(row.yaml_defs, list[str]),
        context_on_storage=row.context_on_storage,
        dockerfile_rel=row.dockerfile_rel,
        builder_job_id=row.builder_job_id,
    )
