"""The client: a transport, and the platform's nouns on top of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Self

from neuro.client.messages import get
from neuro.client.transport import Transport

if TYPE_CHECKING:
    import os

    from neuro.client.bakes import Bakes
    from neuro.client.flows import Flows
    from neuro.client.images import Images
    from neuro.client.jobs import Jobs
    from neuro.client.permissions import Permissions
    from neuro.client.presets import Presets
    from neuro.client.secrets import Secrets
    from neuro.client.storage import Storage
    from neuro.client.users import Users
    from neuro.domain.server_config import ServerConfig


class Client:
    """The platform at one server. A noun's module is loaded when it is first used.

    ``from_config`` makes one of the login of `neuro login`, ``connect`` and ``blocking`` of an
    address and a token. Every call raises PlatformError classes (``neuro.domain.errors``);
    ``error.from_server`` says whether the server answered so, ``error.retry_after`` (seconds) when
    another try makes sense. A server that is busy is asked again for five seconds.
    """

    def __init__(self, transport: Transport, *, cluster: str = "default", user: str = "") -> None:
        """``cluster`` and ``user`` complete short URIs such as ``storage:data``."""
        self.transport = transport
        self.cluster = cluster
        self.user = user

    @classmethod
    def from_config(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        cluster: str | None = None,
        timeout: float = 60.0,
        blocking: bool = False,
    ) -> Self:
        """A client with the login of ``neuro login``, or of a job with ``--pass-config``.

        ``folder``: of the configuration (``NEUROMATION_CONFIG``, else ``~/.neuro``). ``cluster``:
        in place of the current one. ``timeout``: seconds for connecting and for each read.
        ``blocking``: see the method of that name. Raises NotConfigured where nobody is logged in.
        """
        from pathlib import Path

        from neuro.client.accounts import current

        url, token, user, current_cluster = current(Path(folder) if folder is not None else None)
        make = cls.blocking if blocking else cls.connect
        client = make(url, token, timeout=timeout)
        client.user, client.cluster = user, cluster or current_cluster
        return client

    @classmethod
    def connect(cls, url: str, token: str | None, *, timeout: float = 60.0) -> Self:
        """A client on aiohttp, for programs with an event loop; its calls are awaited.

        ``url``: ``http://HOST:8085`` is enough. It may be made outside of the loop, and used by one
        ``asyncio.run`` after another. Raises InvalidInput for what is not an address.
        """
        from neuro.client.accounts import api_url
        from neuro.client.aio import AioTransport

        return cls(AioTransport(api_url(url), token, timeout=timeout), user=_user_of(token))

    @classmethod
    def blocking(cls, url: str, token: str | None, *, timeout: float = 60.0) -> Self:
        """A client without an event loop: its calls are run by ``run``, its lists by ``iterate``.

        It has no ``attach``, ``exec``, ``top`` and ``port_forward``. Raises InvalidInput for what
        is not an address.
        """
        from neuro.client.accounts import api_url
        from neuro.client.blocking import BlockingTransport

        return cls(BlockingTransport(api_url(url), token, timeout=timeout), user=_user_of(token))

    async def config(self) -> ServerConfig:
        """Where everything is, and what the cluster offers."""
        from neuro.domain.server_config import ServerConfig

        return await get(self.transport, "/config", ServerConfig)

    @cached_property
    def bakes(self) -> Bakes:
        from neuro.client.bakes import Bakes

        return Bakes(self)

    @cached_property
    def flows(self) -> Flows:
        from neuro.client.flows import Flows

        return Flows(self)

    @cached_property
    def images(self) -> Images:
        from neuro.client.images import Images

        return Images(self)

    @cached_property
    def jobs(self) -> Jobs:
        from neuro.client.jobs import Jobs

        return Jobs(self)

    @cached_property
    def permissions(self) -> Permissions:
        from neuro.client.permissions import Permissions

        return Permissions(self)

    @cached_property
    def presets(self) -> Presets:
        from neuro.client.presets import Presets

        return Presets(self)

    @cached_property
    def secrets(self) -> Secrets:
        from neuro.client.secrets import Secrets

        return Secrets(self)

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


def _user_of(token: str | None) -> str:
    from neuro.client.accounts import user_in
    from neuro.domain.errors import InvalidInput

    try:
        return user_in(token) if token else ""
    except InvalidInput:
        return ""  # The server says what is wrong with it.
