"""Calls that are repeated until the server answers them: for hours, if need be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from neuro.domain.errors import (
    Damaged,
    NotSupported,
    PlatformError,
    StorageFault,
    TooManyRequests,
)

T = TypeVar("T")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 15.0
_FULL = ("ENOSPC", "EDQUOT")


def is_passing(error: PlatformError) -> bool:
    """Whether a call that failed like this may succeed later, unchanged.

    A server that is away, overloaded, out of disk or in trouble of its own is waited for. Its
    answer about the call itself stays true.
    """
    if isinstance(error, StorageFault):
        return error.errno in _FULL
    if isinstance(error, TooManyRequests):
        return True
    return error.status >= 500 and not isinstance(error, NotSupported | Damaged)


class Pauses:
    """Pauses that grow, each a little by chance so that many callers do not come at once."""

    def __init__(self) -> None:
        self._next = FIRST_PAUSE

    async def wait(self, after: PlatformError | None = None) -> None:
        """Sleep, and next time longer; at least for as long as the error asks for."""
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        if after is not None and after.retry_after is not None:
            pause = max(pause, after.retry_after)
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311

    def reset(self) -> None:
        """Begin anew with short ones."""
        self._next = FIRST_PAUSE


class Patience:
    """Repeats calls; tells once that the server is away, and once that it is back."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._trouble: str | None = None

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of ``call``, which must be safe to repeat; raises what does not pass."""
        pauses = Pauses()
        while True:
            try:
                result = await call()
            except PlatformError as error:
                if not is_passing(error):
                    raise
                self.failed(error)
                await pauses.wait(error)
            else:
                self.succeeded()
                return result

    def failed(self, error: PlatformError) -> None:
        """A call failed, and is repeated."""
        if self._trouble != error.message:
            self._trouble = error.message
            self._log(f"{error.message} Trying again until it works.")

    def succeeded(self) -> None:
        """A call was answered."""
        if self._trouble is not None:
            self._trouble = None
            self._log("The server answers again.")
