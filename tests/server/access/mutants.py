"""Does the table notice when a check is gone? ``make mutants`` asks it of every one of them.

One server runs with a switch before each check (see ``mutation``). First every call is made that
has to be refused, with all checks on: that shows which checks stand in its way. Then each check is
turned off, and the calls that came by it are made again: one of them has to be answered otherwise
now. If none is, the check could be deleted and no test would fail: it survives.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from tests.server.access.mutation import Site, Switch, rewritten
from tests.server.access.people import OUT, PEOPLE, PROGRAMS, Place, may, place
from tests.server.access.rows import Row, rows
from tests.server_process import ServerProcess, running_server

# Checks that nothing can show to be gone, each with the reason.
NOT_TO_BE_SEEN = {
    "http.routes: raise NotAuthenticated(NOT_LOGGED_IN[route.proofs[0]])": "no token"
    " is not a good one either",
    "http.routes: if isinstance(identity, RegistryIdentity) and BASIC not in route.proofs:": (
        "nobody is told such a token: see test_error_forms.py"
    ),
    "http.routes: if self.identity_or_none is None:": "no public route asks who calls",
    'access.grants: if uri.scheme == "cluster" and grant.action is Action.MANAGE and not'
    " uri.segments:": "worked out once, when grants are read: see test_grants.py",
    'schedules.service: caller.require(ResourceURI("job", guard.cluster, (caller.user,)),'
    " Action.WRITE)": "comes with being a user",
    'jobs.specification: yield ResourceURI("job", cluster, (owner,)), Action.WRITE': "likewise",
    "storage.access: return View(authorize(identity, uri, Action.READ), own, known,"
    " partial=False)": "only where they may",
    "projects.service: await self.project(caller, job.project_id, Action.READ)": "asked again,"
    " for what has gone between",
    "bakes.service: self._guard.project(connection, caller, project_id, Action.READ)": "likewise",
    "bakes.attempts.service: return self._guard.bake(connection, caller, attempt.bake_id,"
    " Action.READ)": "likewise",
}
# Who is told no at the same place as a stranger is: one row of theirs is enough.
_ALIKE = {"expired", *OUT}
Asked = tuple[str, int]


class Mutants:
    """The checks of one server, which is running with them."""

    def __init__(self, server: ServerProcess, switch: Switch) -> None:
        self._server = server
        self._switch = switch
        self._ways: dict[int, list[Asked]] = {}

    async def survivors(self, sites: Sequence[Site]) -> AsyncIterator[Site]:
        """Those of the checks without which every call is answered as it should be."""
        stack = AsyncExitStack()
        async with stack:
            ground = await self._ground(stack)
            await self._look(ground)
            for site in sites:
                killed = await self._kill(ground, site)
                if killed is None:
                    yield site
                elif killed.changes:
                    # What should have been refused was done: the next one needs all things anew.
                    await stack.aclose()
                    ground = await self._ground(stack)

    async def _ground(self, stack: AsyncExitStack) -> Place:
        self._switch.turn_off(0)
        return await stack.enter_async_context(place(self._server.url, self._server.token))

    async def _look(self, ground: Place) -> None:
        """Find out which checks stand in the way of which calls."""
        for who in PEOPLE:
            await ground.caller(who)
            table = rows(ground.ids_of(who))
            for number, row in enumerate(table[:5] if who in _ALIKE else table):
                if who not in OUT and may(who, row) and not _is_kept(who, row):
                    continue
                self._switch.passed()
                wrong = await ground.wrong(who, row)
                assert wrong is None, wrong
                for site in self._switch.passed():
                    self._ways.setdefault(site, []).append((who, number))

    async def _kill(self, ground: Place, site: Site) -> Row | None:
        """The row that notices that a check is gone, if one does."""
        ways = self._ways.get(site.number, [])
        table = rows(ground.ids)
        for who, number in sorted(ways, key=lambda it: table[it[1]].changes):
            await ground.caller(who)
            row = rows(ground.ids_of(who))[number]
            self._switch.turn_off(site.number)
            wrong = await ground.wrong(who, row)
            self._switch.turn_off(0)
            if wrong is not None:
                return row
        return None


def _is_kept(who: str, row: Row) -> bool:
    """Whether something is refused or hidden although the row is allowed."""
    by_program = row.by_person and who in PROGRAMS
    by_keeper = row.forever and who == "keeper"
    return by_program or by_keeper or (row.lists and who == "guest")


def all_sites() -> list[Site]:
    """Every check that can be shown to be needed."""
    return [it for it in rewritten()[1] if it.key not in NOT_TO_BE_SEEN]


@contextmanager
def mutated_server(folder: Path) -> Iterator[Mutants]:
    """A server that runs with a switch before each check."""
    state = folder / "switch"
    switch = Switch(state)
    program = (str(Path(__file__).with_name("mutation.py")), str(state))
    # A fork has imported what is to be rewritten.
    with running_server(folder / "data", program=program, forks=False) as server:
        yield Mutants(server, switch)


async def _main() -> int:
    sites = all_sites()
    with (
        tempfile.TemporaryDirectory(prefix="neuro-mutants-") as folder,
        mutated_server(Path(folder)) as mutants,
    ):
        found = [it async for it in mutants.survivors(sites)]
    for site in found:
        print(site)
    print(f"{len(sites) - len(found)} of {len(sites)} checks are missed when they are gone.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
