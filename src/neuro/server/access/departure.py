"""Removing a person or a service account: their tokens and what they have begun end.

Their name is retired. First of all the user goes, so that nothing new is begun in that name. What
follows may be cut off by the end of the server: it is made good by ``sweep``, at the next start and
now and then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import islice

import structlog

from neuro.domain.errors import Conflict
from neuro.server.access.service import AccessService

log = structlog.get_logger("neuro.access")

AT_ONCE = 500  # people whose work is ended by one statement
# Ends what people have begun who are gone: jobs, bakes, schedules.
EndWork = Callable[[Collection[str]], Awaitable[None]]


class Departures:
    """Removes people of one installation."""

    def __init__(self, access: AccessService, machine_owner: str, ends: Sequence[EndWork]) -> None:
        """``machine_owner`` is the user who runs the server, made again at each start."""
        self._access = access
        self._machine_owner = machine_owner
        self._ends = ends

    async def check(self, name: str) -> None:
        """Raise what ``remove`` raises, and remove nobody."""
        await self._access.user(name)
        if name == self._machine_owner:
            raise Conflict(f"{name} is the user who runs this server, and cannot be removed.")
        await self._access.check_removal(name)

    async def remove(self, name: str) -> None:
        """Remove a user with their service accounts and all that was begun. Files and records stay.

        Raises NotFound, Conflict for the last administrator and for the machine's own user.
        """
        await self.check(name)
        names = await self._access.remove_user(name)
        log.info("user removed", user=name)
        await self._end(names)

    async def sweep(self) -> None:
        """End what removed people left behind."""
        gone = iter(sorted(await self._access.gone()))
        while some := list(islice(gone, AT_ONCE)):
            await self._end(some)

    async def _end(self, names: Collection[str]) -> None:
        is_over = True
        for end in self._ends:
            try:
                await end(names)
            except Exception:
                # The others must end all the same; the sweep comes back to this one.
                log.exception("cannot end a removed user's work yet")
                is_over = False
        if is_over:
            await self._access.forget_accounts(names)
