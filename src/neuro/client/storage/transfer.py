"""What all transfers share: progress, outcome, stopping, trying again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from threading import Condition
from typing import Generic, Protocol, TypeVar

import msgspec

from neuro.client.transport import ServerUnreachable, Transport
from neuro.domain.errors import PlatformError, StorageFault, TooManyRequests, Unavailable

T = TypeVar("T")

# A file up to this size travels with others in one request; a larger one alone, to be continued
# where it broke off.
SMALL_BYTES = 1 << 20
BATCH_FILES = 1000
BATCH_BYTES = 16 << 20
STREAMS = 4
TRIES = 8
STOP_SECONDS = 5.0


class Progress(Protocol):
    """Told what a transfer does. Calls come from several threads."""

    def expect(self, files: int, size: int) -> None:
        """So many files and bytes are going to be copied, besides those told before."""
        ...

    def moved(self, count: int) -> None:
        """``count`` more bytes are across; negative where they must be sent again."""
        ...

    def copied(self, source: str, target: str) -> None:
        """One file is there."""
        ...

    def made(self, target: str) -> None:
        """One folder is there."""
        ...

    def skipped(self, source: str, why: str) -> None:
        """A pipe, a socket or a device is left out."""
        ...

    def failed(self, failure: Failed) -> None:
        """One file could not be copied; the others go on."""
        ...


class Silent:
    """Progress that nobody looks at."""

    def expect(self, files: int, size: int) -> None: ...

    def moved(self, count: int) -> None: ...

    def copied(self, source: str, target: str) -> None: ...

    def made(self, target: str) -> None: ...

    def skipped(self, source: str, why: str) -> None: ...

    def failed(self, failure: Failed) -> None: ...


class Failed(msgspec.Struct, frozen=True):
    """One file that could not be copied, and why."""

    source: str
    target: str
    error: PlatformError


class Outcome(msgspec.Struct, frozen=True):
    """What a transfer of a tree did; ``size`` in bytes. ``failed`` is empty when all went well.

    ``unchanged`` counts the files that were there already, ``kept`` those that are newer at the
    target and have another size, ``skipped`` pipes, sockets and devices.
    """

    files: int
    size: int
    failed: tuple[Failed, ...]
    unchanged: int = 0
    kept: int = 0
    skipped: int = 0


class Cancelled(Exception):
    """The transfer was stopped; raised inside of its parts."""


class Tally:
    """Counts what is done, passes it on to a Progress, and knows whether to stop."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._changed = Condition()
        self._files = self._size = self._active = 0
        self._unchanged = self._kept = self._skipped = 0
        self._failed: list[Failed] = []
        self._stopped = False

    @property
    def outcome(self) -> Outcome:
        return Outcome(
            self._files,
            self._size,
            tuple(self._failed),
            self._unchanged,
            self._kept,
            self._skipped,
        )

    def moved(self, count: int) -> None:
        """Pass on progress; raises Cancelled in a transfer that is being stopped."""
        self.check()
        with self._changed:
            self.progress.moved(count)

    def check(self) -> None:
        if self._stopped:
            raise Cancelled

    def copied(self, source: str, target: str, size: int) -> None:
        with self._changed:
            self._files += 1
            self._size += size
            self.progress.copied(source, target)

    def fail(self, source: str, target: str, error: PlatformError) -> None:
        failure = Failed(source, target, error)
        with self._changed:
            self._failed.append(failure)
            self.progress.failed(failure)

    def leave(self, *, differs: bool = False) -> None:
        """Count a file that is there already, or is kept although it ``differs``."""
        if differs:
            self._kept += 1
        else:
            self._unchanged += 1

    def skip(self, source: str, why: str) -> None:
        """Leave out what is neither a file nor a folder."""
        self._skipped += 1
        self.progress.skipped(source, why)

    def begin(self) -> None:
        with self._changed:
            self._active += 1

    def end(self) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Make all parts end soon, and give threads a moment to clean up behind them."""
        self._stopped = True
        with self._changed:
            self._changed.wait_for(lambda: self._active == 0, STOP_SECONDS)


class Queue(Generic[T]):
    """Work for several workers."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = deque(items)

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> T | None:
        try:
            return self._items.popleft()
        except IndexError:
            return None


async def work_off(
    transport: Transport, tally: Tally, items: Iterable[T], handle: Callable[[T], Awaitable[None]]
) -> None:
    """Give each item to ``handle``, several at a time; stop all where one raises."""
    queue = Queue(items)

    async def worker() -> None:
        tally.begin()
        try:
            while (item := queue.take()) is not None:
                tally.check()
                await handle(item)
        finally:
            tally.end()

    count = min(STREAMS, len(queue))
    if count == 0:
        return
    try:
        if count == 1:
            await worker()
        else:
            await transport.gather([worker() for _ in range(count)], limit=count)
    except BaseExceptionGroup as group:  # An event loop's workers may fail side by side.
        tally.stop()
        raise group.exceptions[0] from None
    except BaseException:
        tally.stop()
        raise


class Retry:
    """Tries again after a lost connection, with growing pauses, while there is progress."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._tries = 0

    async def after(self, error: PlatformError) -> None:
        """Wait before another try, or raise ``error`` where it has no use."""
        self._tries += 1
        lost = isinstance(error, ServerUnreachable | TooManyRequests | Unavailable)
        if not lost or self._tries >= TRIES:
            raise error
        pause = min(0.1 * 2 ** (self._tries - 1), 5.0)
        await self._transport.sleep(max(pause, error.retry_after or 0.0))

    def progressed(self) -> None:
        """The pauses begin anew: it was not for nothing."""
        self._tries = 0


def local_fault(error: OSError, path: Path | str) -> PlatformError:
    """The platform's error for what this machine's system said about a local file."""
    import errno

    symbol = errno.errorcode.get(error.errno or errno.EIO, "EIO")
    return StorageFault(symbol, f"{os.strerror(error.errno or errno.EIO)}: '{path}'")
