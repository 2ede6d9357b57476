"""The table of who may do what, asked of a real server row by row.

The owner's turn shows that each call is right in itself: so nothing but a lack of rights has
refused it to the others. That no check can go without failing it is shown by ``mutants``.
"""

from __future__ import annotations

import aiohttp
import pytest

from tests.server.access.people import PEOPLE, place
from tests.server.access.rows import rows
from tests.server.test_routes import BY_FORM, BY_ID, PUBLIC
from tests.server_process import ServerProcess


@pytest.mark.parametrize("who", PEOPLE)
async def test_each_gets_what_they_may_and_no_more(server: ServerProcess, who: str) -> None:
    async with place(server.url, server.token) as made:
        await made.caller(who)
        for row in rows(made.ids_of(who)):
            wrong = await made.wrong(who, row)
            assert wrong is None, wrong


async def test_every_route_has_a_row(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/openapi.json") as got:
        description = await got.json()

    served = {
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations
    }
    asked = {row.operation for row in rows(Names())}
    assert served - asked == PUBLIC | BY_ID | BY_FORM
    assert not asked - served


async def test_what_is_public_needs_no_token(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session:
        for method, path in PUBLIC:
            address = server.url.removesuffix("/api/v1") + path
            async with session.request(method, address) as answer:
                assert answer.status == 200, path


class Names(dict[str, str]):
    """Every name stands for itself."""

    def __missing__(self, name: str) -> str:
        return name
