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
from neuro.cli.job.follow import PATIENCE, wait_for, write_all
from neuro.client import Client
from neuro.client.blocking import run
from neuro.client.jobs import LogPart
from neuro.domain.errors import Unavailable

Write = Callable[[bytes], None]
_PAUSE = 1.0
# A signal that arrives just before a wait begins is heard only when the wait is over.
_HEARING_MS = 250
_STDOUT = 1


def print_bytes(data: bytes) -> None:
    """Write to standard output, byte for byte."""
    write_all(_STDOUT, data)


def copy_log(context: Context, job_id: str, part: LogPart, write: Write = print_bytes) -> None:
    """Copy a part of the job's log until it ends; ``write`` takes each piece, in order.

    A server that is away is waited for. Raises BrokenPipeError once nobody reads standard output,
    and what the server refuses.
    """
    copy = _Copy(context, job_id, part, write)
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


class _Copy:
    """A copy that goes on where it was."""

    def __init__(self, context: Context, job_id: str, part: LogPart, write: Write) -> None:
        self._context = context
        self._job_id = job_id
        self._part = part
        self._write = write
        self._answered = False  # The server was there once.

    def to_the_end(self) -> None:
        """Copy until the job is over; without ``follow``, what there is."""
        client = self._context.streaming_client()
        lost_at: float | None = None
        while True:
            try:
                run(self._once(client))
                # A server that is going down ends its streams: the job goes on without it.
                if not self._part.follow or wait_for(client, self._job_id).status.is_finished:
                    return
                lost_at = None
            except Unavailable:
                if not self._answered:
                    raise
                if lost_at is None:
                    lost_at = time.monotonic()
                    self._context.out.note("The server does not answer; waiting for it…")
                if time.monotonic() - lost_at > PATIENCE:
                    raise
            time.sleep(_PAUSE)

    async def _once(self, client: Client) -> None:
        async with client.jobs.log_part(self._job_id, self._part) as (left_out, chunks):
            self._answered = True
            self._part = structs.replace(self._part, tail=None, skip=left_out)
            async for chunk in chunks:
                self._write(chunk)
                self._part = structs.replace(self._part, skip=self._part.skip + len(chunk))
