"""The rules of attempts: their numbers, and results that stay once they are final."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import Attempt, AttemptRequest, Bake, TaskStatus, new_id
from neuro.domain.errors import InvalidInput, NotFound, NotUnique
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import tables, turns
from neuro.server.bakes.attempts.keeping import take_over
from neuro.server.bakes.checks import check_attempt, check_kept, check_message, moment_or_now
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_attempt
from neuro.server.bakes.guard import BakeGuard, not_own
from neuro.server.bakes.service import name_in_use
from neuro.server.database.damage import Listed
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit, paged
from neuro.server.jobs import tables as job_tables
from neuro.server.projects.guard import missing

PAGE = 100


@dataclass(frozen=True)
class AttemptChange:
    """An attempt before and after."""

    before: Attempt
    after: Attempt


def _check_follows(attempt: Attempt, last: Attempt) -> None:
    if attempt.number <= last.number:
        raise NotUnique(
            f"Attempt #{attempt.number} of this bake exists already; its last one is"
            f" #{last.number}."
        )
    if not last.result.is_finished:
        raise NotUnique(
            f"Attempt #{last.number} of this bake has not ended: wait for its end, or cancel it."
        )


def _executor(
    connection: Connection, owner: Identity, wanted: str | None, known: str | None
) -> str | None:
    """The executor that an attempt has from now on: the known one, or another that its owner names.

    Only a job of the bake's owner drives it.
    """
    if not wanted or wanted == known:
        return known
    job = job_tables.get_job(connection, wanted)
    if job is None:
        return wanted
    return wanted if job.owner == owner.user else known


def _restarts(connection: Connection, request: AttemptRequest) -> bool:
    """Whether an attempt begins anew what the bake's owner has begun before, of the same files."""
    return request.result is TaskStatus.PENDING and tables.has_configs(
        connection, request.bake_id, request.configs_meta
    )


class AttemptService:
    """The attempts of one installation's bakes."""

    def __init__(self, database: Database, guard: BakeGuard, hub: Hub) -> None:
        self._database = database
        self._guard = guard
        self._hub = hub

    async def create(self, caller: Identity, request: AttemptRequest) -> Attempt:
        """Add an attempt to a bake, with all that it keeps of an earlier one.

        Raises NotUnique for a number that is taken, while another attempt is not finished, and
        where another bake of the same name is not; InvalidInput for what cannot be kept;
        NotPermitted for another's bake, unless it begins anew with the files of an earlier attempt.
        """
        check_attempt(request)
        kept = request.kept
        if kept is not None:
            check_kept(kept, request.number)
        attempt = Attempt(
            id=new_id("attempt"),
            bake_id=request.bake_id,
            number=request.number,
            created_at=moment_or_now(request.created_at),
            result=request.result,
            configs_meta=request.configs_meta,
            message=check_message(request.message),
        )

        def add(connection: Connection) -> tuple[Bake, Attempt]:
            bake = self._guard.bake(connection, caller, request.bake_id, Action.WRITE)
            bakes.lock(connection, [bake.id])
            is_own = self._guard.is_own(connection, caller, bake.id)
            if not is_own and not _restarts(connection, request):
                raise not_own(connection, bake.id)
            last = tables.by_number(connection, bake.id, -1)
            if last is not None:
                _check_follows(attempt, last)
            self._mirror(connection, bake, attempt.result)
            made = attempt
            if is_own:
                executor_id = _executor(connection, caller, request.executor_id, None)
                made = msgspec.structs.replace(attempt, executor_id=executor_id)
            tables.add_attempt(connection, made)
            if kept is not None:
                take_over(connection, made, kept)
            turns.enter(connection, bake, made)
            record_attempt(connection, made)
            return bake, made

        def tell(added: tuple[Bake, Attempt]) -> None:
            # This says all: nobody could follow an attempt before, so the tasks that it keeps are
            # news to no subscription, and those who hear of it now find them there.
            self._hub.attempt_created(*added)

        try:
            _, made = await commit(self._database, add, tell)
        except IntegrityError:
            raise await self._why_not(caller, attempt) from None
        return made

    async def replace(self, caller: Identity, request: AttemptRequest) -> Attempt:
        """Change the result, executor and message of a bake's attempt of that number.

        A final result stays, and with it the rest: a cancel is never undone by an executor that
        did not know of it. Returns the attempt as stored. Raises NotPermitted for what is more
        than to cancel another's bake.
        """
        check_attempt(request)
        if request.kept is not None:
            raise InvalidInput(
                "Tasks can be kept only when an attempt is made: name them in the POST."
            )
        message = check_message(request.message)

        def write(connection: Connection) -> AttemptChange:
            hidden = missing("Attempt", f"{request.bake_id}#{request.number}")
            bake = self._guard.bake(connection, caller, request.bake_id, Action.WRITE, hidden)
            bakes.lock(connection, [bake.id])
            is_own = self._guard.is_own(connection, caller, bake.id)
            if not is_own and request.result is not TaskStatus.CANCELLED:
                raise not_own(connection, bake.id)
            before = tables.by_number(connection, bake.id, request.number)
            if before is None:
                raise hidden
            executor_id = before.executor_id
            # Who cancels need not know who drives.
            if is_own:
                executor_id = _executor(connection, caller, request.executor_id, executor_id)
            after = msgspec.structs.replace(
                before,
                result=request.result,
                executor_id=executor_id,
                message=before.message if message is None else message,
            )
            return self._write(connection, bake, before, after)

        return (await commit(self._database, write, self._tell)).after

    async def change(
        self,
        attempt_id: str,
        *,
        result: TaskStatus | None = None,
        executor_id: str | None = None,
        message: str | None = None,
        fence: Callable[[Connection], None] | None = None,
    ) -> Attempt | None:
        """Change the given fields, as the server itself; None for a removed attempt.

        A final result stays, as in ``replace``. ``fence`` is asked in the transaction; whatever it
        raises is raised.
        """

        def write(connection: Connection) -> AttemptChange | None:
            if fence is not None:
                fence(connection)
            known = tables.get_attempt(connection, attempt_id)
            bake = None if known is None else bakes.brief_bake(connection, known.bake_id)
            if bake is None:
                return None
            bakes.lock(connection, [bake.id])
            before = tables.get_attempt(connection, attempt_id, locked=True)
            if before is None:
                return None
            after = msgspec.structs.replace(
                before,
                result=before.result if result is None else result,
                executor_id=before.executor_id if executor_id is None else executor_id,
                message=before.message if message is None else check_message(message),
            )
            return self._write(connection, bake, before, after)

        change = await commit(self._database, write, self._tell)
        return None if change is None else change.after

    def _write(
        self, connection: Connection, bake: Bake, before: Attempt, after: Attempt
    ) -> AttemptChange:
        if before.result.is_finished or after == before:
            return AttemptChange(before, before)
        last = tables.by_number(connection, bake.id, -1)
        if last is not None and last.number == before.number:
            self._mirror(connection, bake, after.result)
        tables.change_attempt(connection, after)
        if after.result.is_finished:
            turns.leave(connection, after.id)
        record_attempt(connection, after)
        return AttemptChange(before, after)

    def _mirror(self, connection: Connection, bake: Bake, result: TaskStatus) -> None:
        """Let the bake have its newest attempt's result, by which its name is in use or free."""
        if bake.name is not None and not result.is_finished:
            running = bakes.open_by_name(connection, bake.project_id, bake.name)
            if running not in (None, bake.id):
                raise name_in_use(bake.name, running)
        bakes.set_status(connection, bake.id, result)

    def _tell(self, change: AttemptChange | None) -> None:
        if change is not None and change.before != change.after:
            self._hub.attempt_changed(change.before, change.after)

    async def _why_not(self, caller: Identity, attempt: Attempt) -> NotUnique:
        """The error of an attempt that another one of the same number came before.

        Raises NotFound where the bake has gone meanwhile.
        """

        def look(connection: Connection) -> Bake:
            return self._guard.bake(connection, caller, attempt.bake_id, Action.READ)

        bake = await self._database.read(look)
        return name_in_use(bake.name or bake.id, None)

    async def attempts(self, caller: Identity, bake_id: str) -> AsyncGenerator[Attempt]:
        """A bake's attempts by number; none where the caller can see no such bake."""

        def page(
            after: Listed[int, Attempt] | None, connection: Connection
        ) -> list[Listed[int, Attempt]]:
            if after is None:
                self._guard.bake(connection, caller, bake_id, Action.READ)
            return tables.list_attempts(connection, bake_id, page=PAGE, after=after)

        try:
            async for listed in paged(self._database, PAGE, page):
                if listed.record is not None:
                    yield listed.record
        except NotFound:
            return

    async def by_number(
        self, caller: Identity, bake_id: str, number: int, *, drives: bool = False
    ) -> Attempt:
        """A bake's attempt of a number; -1 is its last one. ``drives``: the caller may drive it."""

        def find(connection: Connection) -> Attempt:
            hidden = missing("Attempt", f"{bake_id[:60]}#{number}")
            if drives:
                bake = self._guard.own_bake(connection, caller, bake_id, hidden)
            else:
                bake = self._guard.bake(connection, caller, bake_id, Action.READ, hidden)
            attempt = None
            if abs(number) < 1 << 31:
                attempt = tables.by_number(connection, bake.id, number)
            if attempt is None:
                raise hidden
            return attempt

        return await self._database.read(find)

    async def attempt(
        self, caller: Identity, attempt_id: str, action: Action = Action.READ
    ) -> Attempt:
        """The attempt of an id."""

        def find(connection: Connection) -> Attempt:
            return self._guard.attempt(connection, caller, attempt_id, action)

        attempt = await self._database.read(find)
        self._hub.attempt_touched(attempt.bake_id, attempt.id)
        return attempt

    async def unfinished(self) -> list[Attempt]:
        """Every attempt without a final result, oldest first, for the server itself."""
        return await self._database.read(tables.unfinished)
