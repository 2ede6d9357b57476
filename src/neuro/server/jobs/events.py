"""Changes of jobs as they happen, for everybody who wants to be told rather than to ask.

The board tells of a change, and each reader is told in the same turn of the event loop: nobody
waits for the database. What is told is a state, never a difference. So a slow reader gets the
newest state of each job, and one that comes back is told only of the jobs that changed since.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from neuro.domain.jobs import JobEvent, JobEventFilter, JobState, Reason
from neuro.server.access.grants import Visibility
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord

HEARTBEAT_SECONDS = 15.0
# So many jobs that changed are kept for readers that come back; those who miss more begin anew.
KEPT_CHANGES = 4096
# A reader that is so many jobs behind is sent away, to come back with its cursor.
MAX_BEHIND = 4096
BLOCK = 64 << 10

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Wanted:
    """Which jobs a reader wants."""

    visible: Visibility
    tags: tuple[str, ...] = ()
    owners: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    @classmethod
    def of(cls, visible: Visibility, query: JobEventFilter) -> Wanted:
        return cls(visible, tuple(query.tag), frozenset(query.owner), frozenset(query.id))

    def holds(self, change: Change) -> bool:
        """Whether a reader wants, and may see, this."""
        return self._shows(change.owner, change.state.id, change.name, change.state.tags)

    def holds_record(self, record: JobRecord) -> bool:
        """The same of a record."""
        return self._shows(record.owner, record.id, record.name, record.specification.tags)

    def _shows(self, owner: str, job_id: str, name: str | None, tags: Sequence[str]) -> bool:
        return (
            (not self.ids or job_id in self.ids)
            and (not self.owners or owner in self.owners)
            and all(tag in tags for tag in self.tags)
            and self.visible.shows(owner, job_id, name)
        )


@dataclass(slots=True)
class Change:
    """The newest state of a job, and the line that tells it."""

    number: int
    owner: str
    name: str | None
    state: JobState
    line: bytes


class Reader:
    """The states that one reader has not got yet: one per job, so never more than jobs."""

    def __init__(self, wanted: Wanted, max_behind: int) -> None:
        self.wanted = wanted
        self._max_behind = max_behind
        self._waiting: dict[str, Change] = {}
        self._wake = asyncio.Event()
        self.is_lost = False

    def offer(self, change: Change) -> None:
        """Tell of a change, if it is wanted."""
        if self.is_lost or not self.wanted.holds(change):
            return
        self._waiting.pop(change.state.id, None)  # Lines stay in the order of their numbers.
        self._waiting[change.state.id] = change
        if len(self._waiting) > self._max_behind:
            self.lose()
        self._wake.set()

    def lose(self) -> None:
        """Send the reader away, to come back with its cursor."""
        self.is_lost = True
        self._waiting.clear()
        self._wake.set()

    async def take(self, seconds: float) -> list[Change]:
        """What waits, once there is something; nothing after so many seconds."""
        if not self._waiting and not self.is_lost:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
        taken, self._waiting = self._waiting, {}
        return list(taken.values())


class JobEvents:
    """The newest changes, numbered, and their readers."""

    def __init__(
        self,
        board: Board,
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        kept_changes: int = KEPT_CHANGES,
        max_behind: int = MAX_BEHIND,
    ) -> None:
        """``heartbeat`` is after how many seconds of silence a sign of life is sent."""
        self._board = board
        self._heartbeat = heartbeat
        self._kept_changes = kept_changes
        self._max_behind = max_behind
        # Numbers begin anew with every start of the server: a cursor says whose number it is.
        self._life = secrets.token_hex(4)
        self._number = 0
        self._forgotten = 0
        self._changes: dict[str, Change] = {}  # by job, in the order of their numbers
        self._readers: dict[str | None, set[Reader]] = {}  # by their first tag
        board.listen(self._changed)

    def begin_anew(self) -> None:
        """Changes may have been missed: readers are to come back, and get the present state."""
        self._life = secrets.token_hex(4)
        self._changes.clear()
        self._forgotten = self._number
        for readers in self._readers.values():
            for reader in readers:
                reader.lose()

    def _changed(self, record: JobRecord) -> None:
        self._number += 1
        state = state_of(record, self._board.waits_for(record))
        event = JobEvent(cursor=self._cursor(self._number), job=state)
        change = Change(self._number, record.owner, record.name, state, _encode(event))
        self._changes.pop(record.id, None)
        self._changes[record.id] = change
        if len(self._changes) > self._kept_changes:
            self._forgotten = self._changes.pop(next(iter(self._changes))).number
        for key in (None, *dict.fromkeys(state.tags)):
            for reader in self._readers.get(key, ()):
                reader.offer(change)

    async def watch(
        self,
        wanted: Wanted,
        after: str | None,
        records: Callable[[], AsyncGenerator[JobRecord]],
    ) -> AsyncGenerator[bytes]:
        """Blocks of lines: what the reader does not know yet, ``synced``, and then what changes.

        ``records`` are all jobs that it wants, for one whose cursor says nothing. Ends where the
        reader is too slow; it should come back with its newest cursor.
        """
        reader = Reader(wanted, self._max_behind)
        with self._open(reader):
            began = self._number
            known = self._number_of(after)
            if known is None:
                async with aclosing(records()) as found:
                    async for block in _blocks(self._state_lines(found)):
                        yield block
            else:
                missed = [change.line for change in self._since(known) if wanted.holds(change)]
                if missed:
                    yield _block(missed)
            yield _block([_encode(JobEvent(cursor=self._cursor(began), synced=True))])
            while True:
                changes = await reader.take(self._heartbeat)
                if reader.is_lost:
                    return
                lines = [change.line for change in changes]
                yield _block(lines or [_encode(JobEvent(cursor=self._cursor(self._number)))])

    async def _state_lines(self, records: AsyncIterator[JobRecord]) -> AsyncIterator[bytes]:
        async for record in records:
            yield _encode(JobEvent(job=state_of(record, self._board.waits_for(record))))

    @contextmanager
    def _open(self, reader: Reader) -> Iterator[None]:
        key = reader.wanted.tags[0] if reader.wanted.tags else None
        self._readers.setdefault(key, set()).add(reader)
        try:
            yield
        finally:
            readers = self._readers[key]
            readers.discard(reader)
            if not readers:
                del self._readers[key]

    def _cursor(self, number: int) -> str:
        return f"{self._life}-{number}"

    def _number_of(self, cursor: str | None) -> int | None:
        """The number behind a cursor, or None where it says nothing about what is missing."""
        life, _, digits = (cursor or "").partition("-")
        if life != self._life or not digits.isdecimal() or len(digits) > 20:
            return None
        number = int(digits)
        return number if self._forgotten <= number <= self._number else None

    def _since(self, number: int) -> list[Change]:
        newer: list[Change] = []
        for change in reversed(self._changes.values()):
            if change.number <= number:
                break
            newer.append(change)
        return newer[::-1]


def state_of(record: JobRecord, waiting: str | None) -> JobState:
    """A record as events show it. ``waiting`` says what a pending job waits for."""
    last = record.transitions[-1] if record.transitions else None
    return JobState(
        id=record.id,
        status=record.status,
        reason=last.reason if last else None,
        description=waiting or (last.description if last else None),
        exit_code=record.exit_code,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        run_time_seconds=record.run_time(datetime.now(UTC)).total_seconds(),
        log_bytes=_log_bytes(record, last.reason if last else None),
        tags=record.specification.tags,
    )


def _log_bytes(record: JobRecord, reason: str | None) -> int | None:
    # A run that was lost, or could not be started again, says nothing of what was printed before.
    unsure = reason == Reason.NOT_FOUND or (reason == Reason.CANNOT_RUN and record.run > 0)
    known = record.status.is_finished and not record.logs_removed
    return record.log_bytes if known and not (unsure and record.log_bytes == 0) else None


def _block(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


async def _blocks(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines together, some kilobytes at a time."""
    block = bytearray()
    async for line in lines:
        block += line
        block += b"\n"
        if len(block) >= BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)
