"""The rules of bake images. Knows no HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import BakeImage, BakeImageChange, BakeImageRequest, new_id
from neuro.domain.errors import NotFound, NotUnique
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes.checks import MAX_FULL_ID, check_builder, check_image, fits
from neuro.server.bakes.guard import BakeGuard
from neuro.server.bakes.images import tables
from neuro.server.database.damage import Listed
from neuro.server.database.engine import Database
from neuro.server.database.transactions import paged
from neuro.server.projects.guard import is_id, missing

PAGE = 100


class ImageService:
    """The images of one installation's bakes."""

    def __init__(self, database: Database, guard: BakeGuard) -> None:
        self._database = database
        self._guard = guard

    async def create(self, caller: Identity, request: BakeImageRequest) -> BakeImage:
        """Add an image. Raises NotUnique where the bake has one of that ref."""
        check_image(request)
        image = BakeImage(
            id=new_id("bake-image"),
            bake_id=request.bake_id,
            ref=request.ref,
            status=request.status,
            yaml_defs=request.yaml_defs,
            context_on_storage=request.context_on_storage,
            dockerfile_rel=request.dockerfile_rel,
            builder_job_id=request.builder_job_id,
        )

        def look(connection: Connection) -> None:
            self._guard.own_bake(connection, caller, request.bake_id)

        def add(connection: Connection) -> None:
            look(connection)
            tables.add_image(connection, image)

        try:
            await self._database.write(add)
        except IntegrityError:
            # Taken, unless its bake has just been removed, which this look-up says.
            await self._database.read(look)
            raise NotUnique(
                f"Image '{image.ref}' exists already in bake '{image.bake_id}'."
            ) from None
        return image

    async def change(self, caller: Identity, image_id: str, change: BakeImageChange) -> BakeImage:
        """Change what is known of building an image."""
        if change.builder_job_id is not None:
            check_builder(change.builder_job_id)

        def write(connection: Connection) -> BakeImage:
            image = self._find(connection, caller, image_id, locked=True)
            self._guard.own_bake(connection, caller, image.bake_id)
            new = msgspec.structs.replace(
                image,
                status=change.status or image.status,
                builder_job_id=change.builder_job_id or image.builder_job_id,
            )
            tables.change_image(connection, new)
            return new

        return await self._database.write(write)

    async def images(self, caller: Identity, bake_id: str) -> AsyncGenerator[BakeImage]:
        """A bake's images by ref; none where the caller can see no such bake."""

        def page(
            after: Listed[str, BakeImage] | None, connection: Connection
        ) -> list[Listed[str, BakeImage]]:
            if after is None:
                self._guard.bake(connection, caller, bake_id, Action.READ)
            return tables.list_images(connection, bake_id, page=PAGE, after=after)

        try:
            async for listed in paged(self._database, PAGE, page):
                if listed.record is not None:
                    yield listed.record
        except NotFound:
            return

    async def image(self, caller: Identity, image_id: str) -> BakeImage:
        """The image of an id."""

        def find(connection: Connection) -> BakeImage:
            return self._find(connection, caller, image_id)

        return await self._database.read(find)

    async def by_ref(self, caller: Identity, bake_id: str, ref: str) -> BakeImage:
        """The image of a bake that is called ``ref``."""

        def find(connection: Connection) -> BakeImage:
            hidden = missing("Image", ref)
            self._guard.bake(connection, caller, bake_id, Action.READ, hidden)
            image = tables.by_ref(connection, bake_id, ref) if fits(ref, MAX_FULL_ID) else None
            if image is None:
                raise hidden
            return image

        return await self._database.read(find)

    def _find(
        self, connection: Connection, caller: Identity, image_id: str, *, locked: bool = False
    ) -> BakeImage:
        hidden = missing("Bake image", image_id)
        image = None
        if is_id("bake-image", image_id):
            image = tables.get_image(connection, image_id, locked=locked)
        if image is None:
            raise hidden
        self._guard.bake(connection, caller, image.bake_id, Action.READ, hidden)
        return image
