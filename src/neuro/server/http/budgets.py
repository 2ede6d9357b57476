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
    """What one caller may have in flight: ``requests``, and ``streams`` besides."""

    requests: int = 128
    streams: int = 1024
    _taken: Counter[tuple[str, bool]] = field(default_factory=Counter)

    @contextmanager
    def share(self, caller: Identity | None, address: str, *, is_stream: bool) -> Iterator[None]:
        """Around all that is done for a request once its caller is known, the body included.

        Raises TooManyRequests for one more than a caller may have.
        """
        # A user's name has no blank in it, so no address can be taken for one.
        key = (f"address {address}" if caller is None else person_of(caller.user), is_stream)
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


BUDGETS = web.AppKey("budgets", Budgets)
