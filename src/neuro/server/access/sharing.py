"""Giving others what one has, and taking it back. Knows no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotFound,
    NotPermitted,
)
from neuro.domain.names import check_role_name, is_role, owner_of_role
from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import ResourceURI, typed_text
from neuro.server.access import grant_tables as tables
from neuro.server.access.grant_book import GrantBook, Users
from neuro.server.access.grants import Grant, Grants, Held, held_by, role_of, role_uri
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database

log = structlog.get_logger("neuro.access")

# What one subject can be given: it is read whole whenever they come back.
MAX_GRANTS = 10_000
# Of these, what one person can give: nobody fills up what others could be given. All that is public
# is held by everybody.
MAX_BY_ONE = 1_000
# And what one person can give to roles, all together: whoever is put into a role has what it has,
# and is not asked. Who manages all roles knows what they do.
MAX_TO_ROLES = 10_000
# Of everybody, also by the roles that they are in.
MAX_PUBLIC = 1_000
MAX_PUBLIC_BY_ONE = 100
MAX_AT_ONCE = 100
MAX_ROLES = 1_000  # of one owner
MAX_SHARED = 10_000  # grants that one list shows
_ADVICE = "share a folder rather than each file in it, or take some back"
_ALL_ROLES = ResourceURI("role", "")


class Sharing:
    """Grants and roles of one installation."""

    def __init__(self, database: Database, book: GrantBook, now: Callable[[], datetime]) -> None:
        self._database = database
        self._book = book
        self._now = now

    async def share(self, caller: Identity, subject: str, wanted: Sequence[Grant]) -> list[Grant]:
        """Give a subject these grants, all or none; returns what it has on each URI then.

        Raises NotFound, NotPermitted where the caller does not manage a URI for as long, NotFound
        for an unknown subject or role, InvalidInput for roles that would be in each other, Conflict
        where a subject has too many grants.
        """
        now = self._now()
        if len(wanted) > MAX_AT_ONCE:
            raise InvalidInput(f"{len(wanted)} grants at once: {MAX_AT_ONCE} are the most.")
        for grant in wanted:
            _check_may_share(caller, grant)
            if grant.until is not None and grant.until <= now:
                raise InvalidInput("A share cannot end before it begins: give a longer time.")

        def change(connection: Connection) -> list[Grant]:
            kind = self._kind(connection, subject, now)
            own = Grants(Held(it) for it in tables.from_the_start(connection, subject))
            for grant in wanted:
                _check_role(connection, subject, kind, grant.uri)
                best = own.action_on(grant.uri)
                if best is not None and best.includes(grant.action):
                    continue  # It comes with who they are.
                _give(connection, subject, grant, now)
            _check_counts(connection, caller.user, subject)
            if kind == tables.ROLE and caller.action_on(_ALL_ROLES) is None:
                _check_roles(connection, caller.user)
            if kind != tables.USER:
                _check_public(connection, caller.user, subject)
            held = Grants(held_by(subject, tables.reachable(connection, subject), now))
            return [_effective(held, grant) for grant in wanted]

        effective = await self._book.change(users_of({subject}), change)
        for grant in wanted:
            log.info(
                "shared", user=caller.user, subject=subject, uri=str(grant.uri), action=grant.action
            )
        return effective

    def _kind(self, connection: Connection, subject: str, now: datetime) -> str:
        if subject == PUBLIC:
            tables.add_everybody(connection, now)
        kind = tables.kind_of(connection, subject)
        if kind is None:
            raise unknown(subject)
        return kind

    async def revoke(self, caller: Identity, subject: str, uri: ResourceURI) -> None:
        """Take from a subject all that it was given on exactly this URI.

        It holds for the next request, and for what streams. Raises as ``share`` does, and
        InvalidInput where there was nothing to take.
        """
        caller.require(uri, Action.MANAGE)

        def change(connection: Connection) -> None:
            kind = tables.kind_of(connection, subject)
            if kind is None:
                raise unknown(subject)
            given = tables.given_on(connection, subject, uri)
            if any(it.by is None for it in given):
                raise InvalidInput(
                    "Operation has no effect: what comes with being a user cannot be revoked. An"
                    " administrator can remove the user."
                )
            if not given:
                raise InvalidInput(
                    f"Operation has no effect: '{subject}' was given nothing on exactly {uri}."
                    f" `neuro acl explain {typed_text(uri)} {subject}` shows what they have it by."
                )
            tables.drop_grants(connection, subject, uri)

        await self._book.change(users_of({subject}), change)
        log.info("revoked", user=caller.user, subject=subject, uri=str(uri))

    async def held(self, subject: str) -> list[Held]:
        """All that a subject holds now. Raises NotFound."""

        def read(connection: Connection) -> list[Held]:
            if tables.kind_of(connection, subject) is None and subject != PUBLIC:
                raise unknown(subject)
            return held_by(subject, tables.reachable(connection, subject), self._now())

        return await self._database.read(read)

    async def shared(self, user: str, top: str = "") -> list[tuple[str, Grant]]:
        """(subject, grant) of what a user has given to others, and of what others were given of
        theirs: on and below the URI ``top``, or of this scheme (``storage://``).

        Raises InvalidInput where that is too much for one list.
        """
        read = partial(tables.shared_by, owner=user, top=top, now=self._now(), limit=MAX_SHARED + 1)
        found = await self._database.read(read)
        if len(found) > MAX_SHARED:
            raise InvalidInput(
                f"These are more than {MAX_SHARED} grants, which is the most of one list: ask for"
                " a part, such as `neuro acl ls --shared storage:`, or for those below one URI."
            )
        return found

    async def add_role(self, caller: Identity, name: str) -> None:
        """Make a role, with nobody in it and nothing granted to it.

        Raises InvalidInput for a bad name, AlreadyExists, NotPermitted for a role of others.
        """
        check_role_name(name)
        uri = role_uri(name)
        owner = owner_of_role(name)
        caller.require(
            uri,
            Action.MANAGE,
            hidden=NotPermitted(
                f"Only {owner[:80]} and the cluster's admins may make the role '{name[:80]}': the"
                f" names of your own begin with '{caller.user}/'."
            ),
        )
        now = self._now()

        def change(connection: Connection) -> None:
            if tables.kind_of(connection, owner) != tables.USER:
                raise unknown(owner)
            if tables.kind_of(connection, name) is not None:
                raise AlreadyExists(f"Role '{name}' already exists.")
            if len(tables.roles_of_owner(connection, owner)) >= MAX_ROLES:
                raise Conflict(
                    f"{owner} has {MAX_ROLES} roles, which is the most: remove some with `neuro acl"
                    " remove-role`."
                )
            tables.add_subject(connection, name, tables.ROLE, now, owner)

        await self._database.write(change)
        log.info("role added", user=caller.user, role=name)

    async def has_role(self, name: str) -> bool:
        """Whether there is a role of this name."""
        kind = await self._database.read(partial(tables.kind_of, name=name))
        return kind == tables.ROLE

    async def remove_role(self, caller: Identity, name: str) -> None:
        """Remove a role: who was in it loses what it had. Raises NotFound, NotPermitted."""
        caller.require(role_uri(name), Action.MANAGE, hidden=unknown(name))

        def change(connection: Connection) -> None:
            if tables.kind_of(connection, name) != tables.ROLE:
                raise unknown(name)
            tables.remove_subject(connection, name)

        await self._book.change(None, change)
        log.info("role removed", user=caller.user, role=name)

    async def roles(self, subject: str) -> list[str]:
        """The roles that are a user's own, and those that a subject is in. Raises NotFound."""
        held = await self.held(subject)
        own = await self._database.read(partial(tables.roles_of_owner, owner=subject))
        within = {role for it in held if (role := role_of(it.grant.uri)) is not None}
        return sorted(within | set(own))

    async def sweep(self) -> None:
        """Forget grants that have ended. Nobody has had them since."""
        await self._database.write(partial(tables.drop_expired, before=self._now()))


def unknown(subject: str) -> NotFound:
    """What to raise for a user or a role that is not there."""
    noun = "role" if is_role(subject) else "user"
    return NotFound(f'{noun} "{subject[:80]}" was not found')


def _check_may_share(caller: Identity, grant: Grant) -> None:
    uri = grant.uri
    if len(typed_text(uri).encode()) > tables.MAX_URI_BYTES:
        raise InvalidInput(
            f"A URI that is shared can be {tables.MAX_URI_BYTES} bytes long: share a folder above."
        )
    owner = tables.owner_of(uri)
    if len(owner) > tables.MAX_OWNER:
        raise InvalidInput(f"'{owner[:80]}…' is not the name of a user: write the owner's name.")
    caller.require(uri, Action.MANAGE)
    until = caller.grants.covering(uri, Action.MANAGE)[0].until
    if until is not None and (grant.until is None or grant.until > until):
        raise NotPermitted(
            f"You manage {uri} until {until:%Y-%m-%d %H:%M} UTC, and can share it no longer than"
            " that: give a shorter time with --expires."
        )


def _check_role(connection: Connection, subject: str, kind: str, uri: ResourceURI) -> None:
    role = role_of(uri)
    if role is None:
        return
    if tables.kind_of(connection, role) != tables.ROLE:
        raise unknown(role)
    if kind == tables.ROLE and subject in tables.reachable(connection, role):
        raise InvalidInput(
            f"'{role}' is in '{subject}' already, or is the same: roles cannot be in each other."
        )


def _give(connection: Connection, subject: str, grant: Grant, now: datetime) -> None:
    """Add a grant in place of what it includes. One that is included itself is not kept."""
    others: list[Grant] = []
    for one in tables.given_on(connection, subject, grant.uri):
        if one.by is None:
            continue
        # The action given last says until when it holds, also sooner than before.
        if one.action is grant.action or grant.includes(one):
            tables.drop_grants(connection, subject, grant.uri, one.action)
        else:
            others.append(one)
    # What has ended includes nothing that goes on.
    if not any(one.includes(grant) for one in others):
        tables.add_grants(connection, subject, [grant], now)


def _check_counts(connection: Connection, giver: str, subject: str) -> None:
    if tables.count_of(connection, subject, giver) > MAX_BY_ONE:
        raise Conflict(
            f"You have granted '{subject}' {MAX_BY_ONE} things, which is the most: {_ADVICE}."
        )
    if tables.count_of(connection, subject) > MAX_GRANTS:
        raise Conflict(f"'{subject}' has {MAX_GRANTS} grants, which is the most: {_ADVICE}.")


def _check_roles(connection: Connection, giver: str) -> None:
    if tables.count_to_roles(connection, giver) > MAX_TO_ROLES:
        raise Conflict(
            f"You have granted {MAX_TO_ROLES} things to roles, which is the most: {_ADVICE}."
        )


def _check_public(connection: Connection, giver: str, subject: str) -> None:
    """Refuse a change after which everybody, by themselves and by roles, would have too much."""
    held = tables.reachable(connection, PUBLIC)
    if subject not in held:
        return
    givers = [grant.by for grants in held.values() for grant in grants]
    through = "" if subject == PUBLIC else f" (which is in the role '{subject}')"
    if givers.count(giver) > MAX_PUBLIC_BY_ONE:
        raise Conflict(
            f"You have granted '{PUBLIC}'{through} {MAX_PUBLIC_BY_ONE} things, which is the most:"
            f" {_ADVICE}."
        )
    if len(givers) > MAX_PUBLIC:
        raise Conflict(
            f"'{PUBLIC}'{through} has {MAX_PUBLIC} grants, which is the most: {_ADVICE}."
        )


def _effective(held: Grants, grant: Grant) -> Grant:
    best = held.covering(grant.uri)[0]
    return Grant(grant.uri, best.grant.action, best.until, best.grant.by)


def users_of(subjects: Collection[str]) -> Users:
    """Whose grants change when those of these subjects do."""
    anybodys = any(subject == PUBLIC or is_role(subject) for subject in subjects)
    return None if anybodys else subjects
