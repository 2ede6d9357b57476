"""Records that cannot be read any more: one of them never hides the others.

A disk, a power loss or a hand in the database may damage a row. Reading it is an error that says
so. Lists and the server's own work go on without it. The log names it once, without its contents.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from neuro.domain.errors import Damaged

T = TypeVar("T")
Place = TypeVar("Place")

log = structlog.get_logger("neuro.database")

_DAMAGE = (msgspec.MsgspecError, zlib.error, ValueError, TypeError, LookupError)

# What the log has named: lists meet the same record again and again.
_named: set[tuple[str, str]] = set()
_MAX_NAMED = 10_000


def reads(kind: str) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Of a function that makes a record of a row: let it raise Damaged where it cannot."""

    def wrap(make: Callable[[Any], T]) -> Callable[[Any], T]:
        def read(row: Any) -> T:
            try:
                return make(row)
            except _DAMAGE as error:
                _name(kind, row.id, error)
                raise Damaged(
                    f"The record of {kind} '{row.id}' is damaged, and cannot be read: restore it"
                    " from a backup of the server's database, or go on without it."
                ) from error

        return read

    return wrap


def sound(rows: Iterable[Any], read: Callable[[Any], T]) -> Iterator[T]:
    """What rows hold; the damaged ones are left out."""
    for row in rows:
        try:
            record = read(row)
        except Damaged:
            continue
        yield record


def sound_or_none(row: Any, read: Callable[[Any], T]) -> T | None:
    """The contents of a row; None where it is damaged."""
    try:
        return read(row)
    except Damaged:
        return None


@dataclass(frozen=True)
class Listed(Generic[Place, T]):
    """One of a list that is read in pages: where it stands; no record where that is damaged."""

    place: Place
    record: T | None


def moment(value: Any) -> datetime:
    """A time that a row must have. Raises ValueError for what ``Moment`` could not read."""
    if not isinstance(value, datetime):
        raise ValueError("it has no time")
    return value


def moment_or_none(value: Any) -> datetime | None:
    """A time that a row may have. Raises ValueError for what ``Moment`` could not read."""
    return None if value is None else moment(value)


def _name(kind: str, record_id: str, error: Exception) -> None:
    if (kind, record_id) in _named:
        return
    if len(_named) >= _MAX_NAMED:
        _named.clear()
    _named.add((kind, record_id))
    # The message of the error may quote the record.
    log.error("damaged record", kind=kind, id=record_id, error=type(error).__name__)
