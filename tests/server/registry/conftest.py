"""Callers of the registry of a real server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest

from neuro.client import Client
from tests.server.registry.client import Registry
from tests.server_process import ServerProcess


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def registry(server: ServerProcess, session: aiohttp.ClientSession) -> Registry:
    """As the owner of the machine calls."""
    return Registry(session, server.url, server.token)


@pytest.fixture
async def alices(
    server: ServerProcess, session: aiohttp.ClientSession, client: Client, alice: Client
) -> Registry:
    """As Alice calls, who is nobody special."""
    token = await client.users.create_token(alice.user)
    return Registry(session, server.url, token.token)


@pytest.fixture
def home(server: ServerProcess) -> str:
    """A repository of the machine's owner that nothing was pushed to."""
    return f"{server.user}/image-{secrets.token_hex(4)}"
