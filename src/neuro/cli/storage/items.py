"""Commands that work through several files: what fails is said, the rest goes on, exit code 72."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from neuro.cli.context import Context
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import NotAuthenticated, PlatformError, TooManyRequests

T = TypeVar("T")

FAILED_ITEMS = 72


class Items:
    """Counts failures and says them, each with what could not be done."""

    def __init__(self, context: Context) -> None:
        self._out = context.out
        self._failed = False

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn an error inside into a line such as ``cannot remove storage:x: …``.

        What would fail for every other item too (no server, no login) ends the command.
        """
        try:
            yield
        except (ServerUnreachable, NotAuthenticated, TooManyRequests):
            raise
        except (PlatformError, OSError) as error:
            self.failed(what, error)

    def failed(self, what: str, error: Exception) -> None:
        """Say a failure that was told in another way."""
        self._failed = True
        self._out.error(f"cannot {what}: {error}")

    @property
    def exit_code(self) -> int:
        """What the command returns."""
        return FAILED_ITEMS if self._failed else 0


async def collect(items: AsyncIterable[T]) -> list[T]:
    """All of an asynchronous iteration."""
    return [item async for item in items]
