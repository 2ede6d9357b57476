"""A job's log to standard output: over restarts of the server, until nobody reads it any more.

A thread reads, as the standard library's HTTP client blocks; the main one waits for the end of the
log, for Ctrl-C, and for the end of whoever reads what is printed (``neuro logs JOB | head``).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from threading import Thread

from msgspec import structs

from neuro.cli.context import Context
from neuro.cli.outage import PAUSE, Outage
from neuro.client import Client
from neuro.client.blocking import run
from neuro.client.jobs import LogPart
from neuro.client.log_place import LogPlace
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job

Write = Callable[[bytes], None]
# A signal that arrives just before a wait begins is heard only when the wait is over.
_HEARING_MS = 250
_STDOUT = 1


def write_all(number: int, data: bytes) -> None:
    """Write all of ``data`` to a file descriptor, waiting where it cannot take more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(number, view) :]
        except BlockingIOError:
            select.select([], [number], [])


def print_bytes(data: bytes) -> None:
    """Write to standard output, byte for byte."""
    write_all(_STDOUT, data)


def copy_log(context: Context, job_id: str, part: LogPart, write: Write = print_bytes) -> None:
    """Copy a part of the job's log until it ends; ``write`` takes each piece, in order.

    A server that is away is waited for. Raises BrokenPipeError once nobody reads standard output,
    and what the server refuses.
    """
    copy = LogCopy(context.streaming_client(), job_id, write, Outage(context.out.note), part)
    ended, ending = os.pipe()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            copy.to_the_end()
        except BaseException as error:
            failures.append(error)
        finally:
            os.close(ending)

    Thread(target=work, name="log", daemon=True).start()
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(_STDOUT, 0)  # Errors are told without being asked for.
    while not (happened := dict(waiting.poll(_HEARING_MS))):
        pass
    if ended not in happened:
        raise BrokenPipeError
    os.close(ended)
    if failures:
        raise failures[0]


class LogCopy:
    """A copy that goes on where it was."""

    def __init__(
        self,
        client: Client,
        job_id: str,
        write: Write,
        outage: Outage,
        part: LogPart | None = None,
        *,
        answered: bool = False,
    ) -> None:
        """``client`` waits for long; ``answered``: the server was there before."""
        self._client = client
        self._job_id = job_id
        part = part or LogPart()
        self._part = structs.replace(part, offset=part.offset or 0)
        self._place = LogPlace(timestamps=self._part.timestamps)
        self._write = write
        self._outage = outage
        self._answered = answered
        self.finished: Job | None = None  # as it was found to be over

    def to_the_end(self) -> None:
        """Copy until the job is over; without ``follow``, what there is.

        Raises what the server refuses, and what ``write`` raises.
        """
        while True:
            try:
                run(self._once())
                # A server that is going down ends its streams: the job goes on without it.
                if not self._part.follow or self._is_over():
                    return
                pause = PAUSE
            except PlatformError as error:
                if not self._answered:
                    raise
                pause = self._outage.lost(error)
            time.sleep(pause)

    def _is_over(self) -> bool:
        job = run(self._client.jobs.get(self._job_id))
        self._outage.over()
        if not job.status.is_finished:
            return False
        self.finished = job
        return True

    async def _once(self) -> None:
        async with self._client.jobs.log_part(self._job_id, self._part) as (start, chunks):
            self._answered = True
            self._outage.over()
            gone = self._place.begin(start)
            if gone:
                what = "1 byte of the output is" if gone == 1 else f"{gone} bytes of the output are"
                self._outage.say(f"{what} not kept any more.")
            try:
                async for chunk in chunks:
                    if new := self._place.take(chunk):
                        self._write(new)
            finally:
                offset = self._place.offset
                self._part = structs.replace(self._part, tail=None, since=None, offset=offset)
