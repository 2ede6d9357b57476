"""Commands that work through several files: what fails is said, the rest goes on, exit code 72."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import unquote

from neuro.cli.context import Context
from neuro.client.transport import ServerUnreachable
from neuro.domain.errors import NotAuthenticated, NotFound, PlatformError, TooManyRequests
from neuro.domain.printable import printable

T = TypeVar("T")

FAILED_ITEMS = 72
# Of a storage URI: in a local path "%41" is what it looks like.
_QUOTED = re.compile(r"^storage:.*?((?:%[0-9A-Fa-f]{2})+)", re.DOTALL)


class Items:
    """Counts failures and says them, each with what could not be done."""

    def __init__(self, context: Context, typed: Iterable[str] = ()) -> None:
        """``typed`` are the paths of the command line: some failures have their reason there."""
        self._out = context.out
        self._quoted = next((found[1] for text in typed if (found := _QUOTED.search(text))), None)
        self.failures = 0

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn an error inside into a line such as ``cannot remove 'storage:x': …``.

        What would fail for every other item too (no server, no login) ends the command.
        """
        try:
            yield
        except (ServerUnreachable, NotAuthenticated, TooManyRequests):
            raise
        except (PlatformError, OSError) as error:
            if error is self._out.lost:  # Nobody reads what the command prints.
                raise
            self.failed(what, error)

    def failed(self, what: str, error: Exception) -> None:
        """Report a failure that did not come as an exception."""
        self.failures += 1
        hint = ""
        if isinstance(error, NotFound) and self._quoted:
            meant = unquote(self._quoted)
            hint = f" In a URI {self._quoted} means '{meant}': write a percent sign as %25."
            self._quoted = None
        # A line end of a name must not break the message, nor fake another one.
        self._out.error(f"cannot {printable(what)}: {printable(str(error))}{printable(hint)}")

    @property
    def exit_code(self) -> int:
        """What the command returns."""
        return FAILED_ITEMS if self.failures else 0


async def collect(items: AsyncIterable[T]) -> list[T]:
    """All of an asynchronous iteration."""
    return [item async for item in items]
