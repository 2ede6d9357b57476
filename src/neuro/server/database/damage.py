"""Records that cannot be read any more: one of them never hides the others.

A disk, a power loss or a hand in the database may damage a row. Reading it is an error that says
so. Lists and the server's own work go on without it, and the log names it, without its contents.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec
import structlog

from neuro.domain.errors import Damaged

T = TypeVar("T")

log = structlog.get_logger("neuro.bakes")

_DAMAGE = (msgspec.MsgspecError, zlib.error, ValueError, TypeError, LookupError)


def reads(kind: str) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Of a function that makes a record of a row: let it raise Damaged where it cannot."""

    def wrap(make: Callable[[Any], T]) -> Callable[[Any], T]:
        def read(row: Any) -> T:
            try:
                return make(row)
            except _DAMAGE as error:
                raise Damaged(
                    f"The record of {kind} '{row.id}' is damaged, and cannot be read: restore it"
                    " from a backup of the server's database, or go on without it."
                ) from error

        return read

    return wrap


def sound(rows: Iterable[Any], read: Callable[[Any], T]) -> Iterator[T]:
    """What rows hold; the damaged ones are left out."""
    for row in rows:
        record = sound_or_none(row, read)
        if record is not None:
            yield record


def sound_or_none(row: Any, read: Callable[[Any], T]) -> T | None:
    """The contents of a row; None where it is damaged."""
    try:
        return read(row)
    except Damaged as error:
        left_out(row.id, error)
        return None


def left_out(record_id: str, error: Damaged) -> None:
    """Say in the log that a record is passed over."""
    # The cause's message may quote the record.
    log.error("damaged record left out", id=record_id, error=type(error.__cause__).__name__)
