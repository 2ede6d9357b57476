"""Bake images over HTTP."""

from __future__ import annotations

import msgspec
from aiohttp import web

from neuro.domain.bakes import BakeImage, BakeImageChange, BakeImageRequest
from neuro.server.bakes.images.service import ImageService
from neuro.server.http.answers import list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON

IMAGES = "/api/v1/flow/bake_images"


class ImagesOfBake(msgspec.Struct, frozen=True):
    bake_id: str


class ByRef(msgspec.Struct, frozen=True):
    bake_id: str
    ref: str


def add_images(api: Routes, images: ImageService) -> None:
    """Declare the routes of bake images."""

    @api.add("GET", IMAGES, section="flows", streams=NDJSON)
    async def list_bake_images(call: Call, query: ImagesOfBake) -> web.StreamResponse:
        """List a bake's images; NDJSON where the client accepts it."""
        return await list_answer(call, images.images(call.identity, query.bake_id))

    @api.add("POST", IMAGES, status=201, section="flows")
    async def create_bake_image(call: Call, body: BakeImageRequest) -> BakeImage:
        """Add an image; 409 where the bake has one of that ref."""
        return await images.create(call.identity, body)

    @api.add("GET", f"{IMAGES}/by_ref", section="flows")
    async def bake_image_by_ref(call: Call, query: ByRef) -> BakeImage:
        """The image of a bake and a ref."""
        return await images.by_ref(call.identity, query.bake_id, query.ref)

    @api.add("GET", IMAGES + "/{image}", section="flows")
    async def get_bake_image(call: Call) -> BakeImage:
        """A bake's image by its id."""
        return await images.image(call.identity, call.segment("image"))

    @api.add("PATCH", IMAGES + "/{image}", section="flows")
    async def change_bake_image(call: Call, body: BakeImageChange) -> BakeImage:
        """Change the status or the builder of an image."""
        return await images.change(call.identity, call.segment("image"), body)
