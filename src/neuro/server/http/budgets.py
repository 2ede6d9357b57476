"""What one person may have in flight, or one address where nobody has said who they are.

It is less than what the server can do at once, so one person's requests never take it from the
others. A place is taken when the caller is known and before the body is read: a slow body costs
whoever sends it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from neuro.domain.errors import TooManyRequests
from neuro.server.access.identity import Identity
from neuro.server.access.people import person_of


@dataclass
class Budgets:
    """What one caller may have in flight: ``requests``, and ``streams`` besides.

    ``answers`` are bytes of large answers that they have not read.
    """

    requests: int = 128
    streams: int = 1024
    answers: int = 64 << 20
    _taken: Counter[tuple[str, bool]] = field(default_factory=Counter)
    _unread: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def share(self, caller: Identity | None, address: str, *, is_stream: bool) -> Iterator[None]:
        """Around all that is done for a request once its caller is known, the body included.

        Raises TooManyRequests for one more than a caller may have.
        """
        key = (_holder(caller, address), is_stream)
        limit = self.streams if is_stream else self.requests
        if self._taken[key] >= limit:
            what = "streams" if is_stream else "requests"
            raise TooManyRequests(
                f"{limit} {what} of yours are in progress, which is the most for one person: try"
                " again in a second."
            )
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]

    @contextmanager
    def unread(self, caller: Identity | None, address: str, size: int) -> Iterator[None]:
        """Around the sending of a large answer of ``size`` bytes.

        Raises TooManyRequests where it is more than a caller may have; the first is never.
        """
        key = _holder(caller, address)
        if self._unread[key] and self._unread[key] + size > self.answers:
            raise TooManyRequests(
                f"{self.answers >> 20} MiB of answers to you are not read yet, which is the most"
                " for one person: read them, and try again in a second."
            )
        self._unread[key] += size
        try:
            yield
        finally:
            self._unread[key] -= size
            if not self._unread[key]:
                del self._unread[key]


def _holder(caller: Identity | None, address: str) -> str:
    # A user's name has no blank in it, so no address can be taken for one.
    return f"address {address}" if caller is None else person_of(caller.user)


BUDGETS = web.AppKey("budgets", Budgets)
