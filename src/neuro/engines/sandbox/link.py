"""The engine's control connection to one supervisor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from neuro.engines.base import RunRef
from neuro.engines.sandbox import layout, wire
from neuro.engines.sandbox.ending import ExitRecord
from neuro.engines.sandbox.taking import take


class Link(asyncio.Protocol):
    """What the engine knows of a run that is going, and how it tells it things.

    ``on_started``, ``on_waiting`` and ``on_over`` are called on the event loop; ``on_over`` once,
    with ``record`` set unless the supervisor vanished without a word.
    """

    def __init__(
        self,
        ref: RunRef,
        on_started: Callable[[Link], None],
        on_over: Callable[[Link], None],
        on_waiting: Callable[[Link], None] = lambda link: None,
    ) -> None:
        self.ref = ref
        self.state: dict[str, Any] = {}
        self.record: ExitRecord | None = None
        self.over = asyncio.Event()
        self.previous_usage: tuple[float, float] | None = None
        self._on_started = on_started
        self._on_over = on_over
        self._on_waiting = on_waiting
        self._known = asyncio.get_running_loop().create_future()
        self._frames = wire.Frames()
        self._transport: asyncio.Transport | None = None
        self._followers: list[tuple[int, asyncio.Future[None]]] = []

    @classmethod
    async def open(
        cls,
        folder: str,
        ref: RunRef,
        on_started: Callable[[Link], None],
        on_over: Callable[[Link], None],
        on_waiting: Callable[[Link], None] = lambda link: None,
    ) -> Link:
        """Connect to the run in ``folder``. Raises OSError where no supervisor listens."""
        link = cls(ref, on_started, on_over, on_waiting)
        await take(layout.connect(folder), lambda: link)
        try:
            await link._known
        except BaseException:  # whoever waited has given up
            link.close()
            raise
        return link

    @property
    def started(self) -> int | None:
        """When the command began (ns), if it did."""
        return cast("int | None", self.state.get("started"))

    @property
    def init(self) -> int | None:
        """The pid of the sandbox's init, if it is known yet."""
        return cast("int | None", self.state.get("init"))

    def stop(self, grace: float) -> None:
        """Ask for SIGTERM now and SIGKILL after ``grace`` seconds."""
        self._send(wire.json_frame(wire.STOP, {"grace": grace}))

    async def wrote_after(self, offset: int) -> None:
        """Wait until the log ends after ``offset``, or the run is over."""
        if self.over.is_set():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers.append((offset, waiter))
        self._follow()
        try:
            await waiter
        finally:
            self._followers = [item for item in self._followers if item[1] is not waiter]

    def close(self) -> None:
        """Let go of the run; it goes on."""
        self._on_over = self._on_started = self._on_waiting = lambda link: None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send(wire.frame(wire.CONTROL))

    def data_received(self, data: bytes) -> None:
        for kind, payload in self._frames.feed(data):
            self._frame(kind, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self._known.done():
            self._known.set_result(None)
        self._on_over(self)

    def finished(self) -> None:
        """Wake everyone who waits for the run's output: there will be no more."""
        self.over.set()
        for _, waiter in self._followers:
            if not waiter.done():
                waiter.set_result(None)

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == wire.STATE:
            self.state = json.loads(payload)
            if self.started is not None:
                self._on_started(self)
            else:
                self._on_waiting(self)
            if not self._known.done():
                self._known.set_result(None)
        elif kind == wire.STARTED:
            self.state["started"] = json.loads(payload)["at"]
            self.state["init"] = json.loads(payload)["init"]
            self._on_started(self)
        elif kind == wire.WAITING:
            self.state["waiting"] = json.loads(payload)
            self._on_waiting(self)
        elif kind == wire.EXITED:
            self.record = ExitRecord.from_json(json.loads(payload))
        elif kind == wire.WROTE:
            end = wire.OFFSET.unpack(payload)[0]
            for offset, waiter in self._followers:
                if offset < end and not waiter.done():
                    waiter.set_result(None)
            self._follow()

    def _follow(self) -> None:
        waiting = [offset for offset, waiter in self._followers if not waiter.done()]
        if waiting:
            self._send(wire.frame(wire.FOLLOW, wire.OFFSET.pack(min(waiting))))

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(message)
