"""A real HTTP server with the storage's routes over a real folder, in a thread of its own.

Callers are known by simple tokens with chosen permissions, so that a test says who may do what.
"""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

from neuro.client import Client
from neuro.domain.errors import NotAuthenticated
from neuro.domain.frames import BULK_FEATURE
from neuro.domain.permissions import Action, Permission, admin_permissions, owner_permissions
from neuro.domain.server_config import ClusterMessage, ServerConfig
from neuro.domain.uris import parse_uri
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.http.errors import render_errors
from neuro.server.http.routes import AUTHENTICATOR, Call, Routes, install
from neuro.server.storage.paths import MAX_LINE_BYTES
from neuro.server.storage.routes import storage_routes
from neuro.server.storage.service import StorageService

CLUSTER = "default"


class Tokens:
    """An authenticator that knows the people of the tests."""

    def __init__(self) -> None:
        self._people: dict[str, Identity] = {}

    def add(self, user: str, *shared: tuple[str, Action], admin: bool = False) -> None:
        permissions = owner_permissions(user, CLUSTER)
        permissions += [Permission(parse_uri(uri), action) for uri, action in shared]
        if admin:
            permissions += admin_permissions(CLUSTER)
        self._people[user] = Identity(user, Grants.of(permissions), user)

    @staticmethod
    def jwt(user: str) -> str:
        """A token in the form that the command line insists on."""
        parts = ({"alg": "none"}, {"identity": user}, {})
        return ".".join(
            urlsafe_b64encode(json.dumps(p).encode()).decode().strip("=") for p in parts
        )

    async def authenticate(self, token: str) -> Identity:
        by_jwt = {self.jwt(user): user for user in self._people}
        try:
            return self._people[by_jwt.get(token, token)]
        except KeyError:
            raise NotAuthenticated("The token is unknown.") from None


class StorageServer:
    """Runs while its ``with`` block does. ``root`` is where the files are."""

    def __init__(
        self,
        root: Path,
        *,
        features: tuple[str, ...] = (BULK_FEATURE,),
        use_openat2: bool | None = None,
    ) -> None:
        self.root = root
        self.tokens = Tokens()
        self.tokens.add("alice")
        self.tokens.add("bob")
        self.tokens.add("admin", admin=True)
        self.service = StorageService(root, CLUSTER, use_openat2=use_openat2)
        self.requests: list[str] = []
        self.in_flight = 0
        self._features = features
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop it; nothing if it is over."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"

    def home(self, owner: str) -> Path:
        """The folder of an owner's files, made if need be."""
        folder = self.root / owner
        folder.mkdir(exist_ok=True)
        return folder

    def client(self, user: str, **options: float) -> Client:
        """A client without an event loop."""
        client = Client.blocking(self.url, user, **options)
        client.user = user
        return client

    def aio_client(self, user: str) -> Client:
        client = Client.connect(self.url, user)
        client.user = user
        return client

    def _serve(self) -> None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._note, render_errors], client_max_size=1 << 20)
        app[AUTHENTICATOR] = self.tokens
        routes = Routes("config")
        routes.add("GET", "/api/v1/config", public=True)(self._config)
        install(app, [*storage_routes(self.service).items, *routes.items])
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.5,
            max_line_size=MAX_LINE_BYTES,
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()
        await self.service.close()

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(request.query.get("op", request.path))
        self.in_flight += 1
        try:
            return await handler(request)
        finally:
            self.in_flight -= 1

    async def _config(self, call: Call) -> ServerConfig:
        anywhere = "http://127.0.0.1/none"
        cluster = ClusterMessage(
            name=CLUSTER,
            orgs=[None],
            registry_url=anywhere,
            storage_url=f"{self.url}/storage",
            users_url=anywhere,
            monitoring_url=anywhere,
            secrets_url=anywhere,
            disks_url=anywhere,
            buckets_url=anywhere,
            resource_presets=[],
            resource_pool_types=[],
        )
        return ServerConfig(
            auth_url=anywhere,
            token_url=anywhere,
            logout_url=anywhere,
            client_id="neuro",
            audience="tests",
            headless_callback_url=anywhere,
            callback_urls=[],
            authorized=True,
            user_name="alice",
            clusters=[cluster],
            features=list(self._features),
        )
