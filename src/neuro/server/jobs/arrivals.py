"""Opens the engines when a server starts, and tries those that are away again and again.

One engine that cannot be opened must not stop everybody else's jobs: it is away, whatever the
reason, until it can be. Only the embedded one has to be there, as nothing goes on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from neuro.domain.errors import PlatformError
from neuro.engines.base import Engine, EngineFault, Node
from neuro.server.background import Errands

log = structlog.get_logger("neuro.jobs")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class Arrivals:
    """The engines of one server: which are open, and why the others are away."""

    def __init__(self, engines: Mapping[str, Engine], needed: str) -> None:
        """``needed`` is the one that has to be there."""
        self.away: dict[str, str] = {}
        self.nodes: dict[str, Sequence[Node]] = dict.fromkeys(engines, ())
        self._engines = engines
        self._needed = needed
        self._open: list[str] = []
        self._trying: set[str] = set()
        self._errands = Errands("arrival of engines")
        self._came: Callable[[str], Awaitable[None]] | None = None

    @property
    def there(self) -> list[str]:
        """The engines that are not away."""
        return [name for name in self._engines if name not in self.away]

    def is_away(self, name: str) -> bool:
        """Whether an engine could not be reached when that was tried last."""
        return name in self.away

    def is_needed(self, name: str) -> bool:
        """Whether nothing goes on without an engine."""
        return name == self._needed

    async def open(self) -> None:
        """Open all of them. Raises what the needed one raises; ``close`` is to be called anyway."""
        tries = (self._open_one(name) for name in self._engines)
        for result in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _open_one(self, name: str) -> None:
        try:
            await self._try(name)
        except Exception as error:
            if not self.is_needed(name):
                self._note(name, error)
            self.missed(name, error)

    def missed(self, name: str, error: Exception) -> None:
        """An engine cannot be used by a server that starts. Raises the error of the needed one."""
        if self.is_needed(name):
            raise error
        self.gone(name, error)

    async def _try(self, name: str) -> None:
        engine = self._engines[name]
        if name not in self._open:
            await engine.open()
            self._open.append(name)
        self.nodes[name] = await engine.nodes()

    def gone(self, name: str, error: Exception) -> None:
        """An engine turned out not to be there, or there is something else in its way."""
        log.warning("an engine is away, and is tried again", engine=name, why=_said(error))
        self.away[name] = away_because(name, _said(error))
        if self._came is not None:
            self._try_again(name, self._came)

    def begin(self, came: Callable[[str], Awaitable[None]]) -> None:
        """Try again those that are away. ``came`` is called with each that is there at last.

        Where it raises EngineFault, OSError or PlatformError, that one stays away.
        """
        self._came = came
        for name in self.away:
            self._try_again(name, came)

    def _try_again(self, name: str, came: Callable[[str], Awaitable[None]]) -> None:
        if name not in self._trying:
            self._trying.add(name)
            self._errands.begin(self._try_on(name, came))

    async def _try_on(self, name: str, came: Callable[[str], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while self.is_away(name):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                try:
                    await self._try(name)
                    # Before it is taken: it may turn out to be gone again.
                    self.away.pop(name, None)
                    log.info("an engine is there", engine=name)
                    await came(name)
                except Exception as error:
                    self._note(name, error)
                    self.away[name] = away_because(name, _said(error))
        finally:
            self._trying.discard(name)

    def _note(self, name: str, error: Exception) -> None:
        """Leave a trace of what nobody expected."""
        if not isinstance(error, EngineFault | OSError | PlatformError):
            log.error("an engine cannot be taken", engine=name, exc_info=error)

    async def stop(self) -> None:
        """Try none again."""
        self._came = None
        await self._errands.stop()

    async def close(self) -> None:
        """Let go of all that are open."""
        await self.stop()
        while self._open:
            await self._engines[self._open.pop()].close()


def away_because(engine: str, why: str) -> str:
    """What is said of an engine that cannot be reached, and why."""
    return f"The engine '{engine}' is away: {why.removesuffix('.')}"


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__
