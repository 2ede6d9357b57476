"""The client: a transport, and the platform's nouns on top of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

import msgspec

from neuro.client.transport import Request, Transport

if TYPE_CHECKING:
    from neuro.client.bakes import Bakes
    from neuro.client.flows import Flows
    from neuro.client.jobs import Jobs
    from neuro.client.storage import Storage
    from neuro.client.users import Users
    from neuro.domain.server_config import ServerConfig


class Client:
    """The platform at one server. A noun's module is loaded when it is first used."""

    def __init__(self, transport: Transport, *, cluster: str = "default", user: str = "") -> None:
        """``cluster`` and ``user`` complete short URIs such as ``storage:data``."""
        self.transport = transport
        self.cluster = cluster
        self.user = user

    @classmethod
    def connect(cls, url: str, token: str | None, *, timeout: float = 60.0) -> Self:
        """A client on aiohttp; call it inside a running event loop."""
        from neuro.client.aio import AioTransport

        return cls(AioTransport(url, token, timeout=timeout))

    @classmethod
    def blocking(cls, url: str, token: str | None, *, timeout: float = 60.0) -> Self:
        """A client whose calls run with ``neuro.client.blocking.run``, without an event loop."""
        from neuro.client.blocking import BlockingTransport

        return cls(BlockingTransport(url, token, timeout=timeout))

    async def config(self) -> ServerConfig:
        """Where everything is, and what the cluster offers."""
        from neuro.domain.server_config import ServerConfig

        async with self.transport.send(Request(method="GET", path="/config")) as response:
            return msgspec.json.decode(await response.read(), type=ServerConfig)

    @cached_property
    def bakes(self) -> Bakes:
        from neuro.client.bakes import Bakes

        return Bakes(self)

    @cached_property
    def flows(self) -> Flows:
        from neuro.client.flows import Flows

        return Flows(self)

    @cached_property
    def jobs(self) -> Jobs:
        from neuro.client.jobs import Jobs

        return Jobs(self)

    @cached_property
    def storage(self) -> Storage:
        from neuro.client.storage import Storage

        return Storage(self)

    @cached_property
    def users(self) -> Users:
        from neuro.client.users import Users

        return Users(self)

    async def close(self) -> None:
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
