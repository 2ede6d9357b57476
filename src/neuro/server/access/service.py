"""Who may act, and with which token. Knows no HTTP."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    Unavailable,
)
from neuro.domain.names import check_user_name
from neuro.domain.permissions import Permission, admin_permissions, owner_permissions
from neuro.domain.uris import ResourceURI
from neuro.domain.users import MAX_TOKEN_LIFE, Token, User, check_token_life
from neuro.server.access import tables
from neuro.server.access.grant_book import GrantBook
from neuro.server.access.grant_tables import changed, generation, of_subject
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity, JobIdentity, RegistryIdentity, ServiceIdentity
from neuro.server.access.peers import Peers, Telling, Words
from neuro.server.access.people import person_of
from neuro.server.access.scopes import Scope, scoped
from neuro.server.access.service_accounts import ServiceAccounts
from neuro.server.access.sharing import Sharing, unknown, users_of
from neuro.server.access.tokens import SignedToken, TokensInUse, digest_of_token
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Topic

log = structlog.get_logger("neuro.access")

DEFAULT_TOKEN_LIFE = timedelta(days=365)
PUSH_TOKEN_LIFE = timedelta(hours=12)  # an engine shows it at the end of a push again
IMAGE_TOKEN_LIFE = timedelta(hours=1)  # an engine shows it with each layer that it pulls
# A client asks for the next one when it is over; what has begun with it goes on.
SCOPED_TOKEN_LIFE = timedelta(minutes=5)
MAX_LABEL = 256
JOBS_AT_ONCE = 500  # whose tokens are looked for
ALL_TOKENS = "*"  # is no token's id
OpenTokens = Callable[[], Iterable[tuple[str, str]]]


def _now() -> datetime:
    return datetime.now(UTC)


class AccessService:
    """Users and tokens of one installation."""

    def __init__(
        self,
        database: Database,
        key: bytes,
        cluster: str,
        now: Callable[[], datetime] = _now,
        peers: Peers | None = None,
        everybodys: Sequence[Permission] = (),
    ) -> None:
        """``peers`` are the other servers of this database; ``everybodys`` is what all users hold
        by the server's settings.
        """
        self._database = database
        self._peers = peers or Peers()
        self._cluster = cluster
        self._now = now
        self.book = GrantBook(database, now, peers=self._peers, everybodys=everybodys)
        self.sharing = Sharing(database, self.book, now)
        self._in_use = TokensInUse(database, key, now, self.book.seen)
        self.service_accounts = ServiceAccounts(database, self.book, cluster, self._of_account, now)
        self._listeners: list[Callable[[str, str | None], None]] = []
        self._open_tokens: list[OpenTokens] = []
        self._peers.hear(Topic.TOKENS, self._drop, self._look_again)

    def listen(self, listener: Callable[[str, str | None], None]) -> None:
        """Have ``listener(user, token_id)`` called when a token has ended before its time.

        With None for the token, all of the user's have ended.
        """
        self._listeners.append(listener)

    def ask(self, open_tokens: OpenTokens) -> None:
        """Have ``open_tokens`` called for (user, token id) of all with which something goes on,
        where it is not known which have ended.
        """
        self._open_tokens.append(open_tokens)

    async def authenticate(self, token: str) -> Identity:
        """The identity behind a token. Raises NotAuthenticated, saying which it is."""
        if not self._peers.is_current:
            await self._peers.catch_up()
        signed = await self._in_use.find(token)
        while (grants := self.book.known(signed.user)) is None:
            await self.book.of(signed.user)
            signed = await self._in_use.find(token)  # It may have ended since.
        identity = _identity(signed, grants)
        return identity if signed.scope is None else scoped(identity, signed.scope)

    async def scoped_token(self, token: str, wanted: Scope) -> tuple[str, Scope, datetime]:
        """A short-lived token for what its owner may do of ``wanted``, what that is, and its end.

        Raises NotAuthenticated, also where ``token`` is such a one itself: it would live on.
        """
        identity = await self.authenticate(token)
        signed = await self._in_use.find(token)
        if signed.scope is not None:
            raise NotAuthenticated(
                "This token was made of another one: show that one to get the next."
            )
        scope = wanted.cut(identity.allows)
        text, expires_at = self._in_use.sign_scoped(signed, scope, SCOPED_TOKEN_LIFE)
        return text, scope, expires_at

    async def identity_of(self, user: str) -> Identity:
        """A user with all their present permissions: for what the server does in their name.

        Raises NotFound for a removed user.
        """

        def look_up(connection: Connection) -> tuple[User | None, int]:
            return tables.get_user(connection, user), generation(connection)

        found, number = await self._database.read(look_up)
        if found is None:
            raise unknown(user)
        self.book.seen(number)
        return Identity(user, await self.book.of(user), token_id="")

    async def add_user(
        self, name: str, *, is_admin: bool = False, may_be_retired: bool = False
    ) -> User:
        """Make a user who owns what is theirs; an admin also manages everybody's.

        Raises InvalidInput for a bad name, AlreadyExists for a taken one, and, unless it
        ``may_be_retired``, for one of somebody who was removed.
        """
        check_user_name(name)
        user = User(name=name, is_admin=is_admin, created_at=self._now())
        grants = owner_permissions(name, self._cluster)
        if is_admin:
            grants += admin_permissions(self._cluster)

        def add(connection: Connection) -> None:
            if tables.get_user(connection, name) is not None:
                raise AlreadyExists(f"User '{name}' already exists.")
            if not may_be_retired and tables.is_retired(connection, name):
                raise AlreadyExists(
                    f"The name '{name}' belonged to a user who was removed, and a new user"
                    " would get their files and jobs: choose another name."
                )
            tables.add_user(connection, user, grants)

        try:
            await self.book.change({name}, add)
        except IntegrityError:  # Of two at once on PostgreSQL, neither saw the other.
            raise AlreadyExists(f"User '{name}' already exists.") from None
        log.info("user added", user=name, is_admin=is_admin)
        return user

    async def user(self, name: str) -> User:
        """Raises NotFound."""
        found = await self._database.read(lambda connection: tables.get_user(connection, name))
        if found is None:
            raise unknown(name)
        return found

    async def users(self, *, after: str = "", limit: int = 1000) -> list[User]:
        """Users by name, a page at a time."""
        return await self._database.read(
            lambda connection: tables.list_users(connection, after=after, limit=limit)
        )

    async def check_removal(self, name: str) -> None:
        """Raise Conflict for the last administrator, who cannot be removed."""
        await self._database.read(lambda connection: _check_not_last(connection, name))

    async def remove_user(self, name: str) -> list[str]:
        """Remove a user with all their tokens, permissions and service accounts. Returns who has
        gone: nobody gets a person's name again, and an account's only when its work has ended.

        Raises NotFound, Conflict for the last administrator.
        """
        now = self._now()
        going: list[tuple[str, str | None]] = []
        touched: set[str] = set()

        def remove(connection: Connection, telling: Telling) -> bool:
            changed(connection)  # First, as whoever changes grants does: each waits for the other.
            _check_not_last(connection, name)
            if tables.hold_user(connection, name) is None:
                raise unknown(name)
            accounts = tables.service_accounts_of(connection, name)
            going[:] = [(user, None) for user in (*(it.role for it in accounts), name)]
            for user, _ in going:
                tables.retire(connection, user, now)
                touched.update(tables.remove_user(connection, user))
            self.book.record(connection, users_of(touched), telling)
            return True

        await self._end(going, remove, lambda: self.book.changed(users_of(touched)))
        return [user for user, _ in going]

    async def forget_accounts(self, names: Collection[str]) -> None:
        """Let the names of service accounts be given again whose work has ended."""
        accounts = [name for name in names if person_of(name) != name]
        if accounts:
            await self._database.write(lambda c: tables.forget_retired(c, accounts))

    async def gone(self) -> set[str]:
        """The names of people who were removed."""
        return await self._database.read(tables.gone)

    async def make_token(
        self,
        user: str,
        *,
        label: str = "",
        life: timedelta = DEFAULT_TOKEN_LIFE,
    ) -> Token:
        """Issue a token; its text is in the answer and nowhere else. Raises NotFound."""
        check_token_life(life)
        if len(label) > MAX_LABEL:
            raise InvalidInput(f"A label can be {MAX_LABEL} characters long.")
        await self.user(user)
        record, text = self._new_token(user, label, life)
        await self._database.write(lambda c: tables.add_token(c, record, digest_of_token(text)))
        log.info("token made", user=user, token=record.id, label=label)
        return msgspec.structs.replace(record, token=text)

    async def pass_token(
        self,
        user: str,
        *,
        job: str,
        label: str = "",
        life: timedelta = DEFAULT_TOKEN_LIFE,
        images: bool = False,
    ) -> Token:
        """Issue the token of a job's next run, and end those of earlier ones. Raises NotFound.

        It gives its holder a JobIdentity; with one for ``images`` these are pulled and pushed, and
        nothing else is done. Both are one change; from this call on the earlier ones are refused.
        """
        now = self._now()
        new, text = self._new_token(user, label, life, images=images)
        ending: list[tuple[str, str]] = []
        self._in_use.refuse_jobs([job])

        def change(telling: Telling, connection: Connection) -> None:
            if tables.get_user(connection, user) is None:
                raise unknown(user)
            ending[:] = tables.tokens_of_jobs(connection, [job])
            if ending:
                _revoke(connection, ending, now, telling)
            tables.add_token(connection, new, digest_of_token(text), job)

        with self._peers.telling(waits=False) as telling:
            try:
                await self._database.write(partial(change, telling))
            except NotFound:  # all tokens of that user are gone, too
                self._in_use.forget_jobs([job])
                raise
            finally:
                # After an error as well: a database may fail just after it has made the change.
                self._tell(ending)
            await telling.heard()
        self._in_use.forget_jobs([job])
        log.info("token made", user=user, token=new.id, label=label, job=job)
        return msgspec.structs.replace(new, token=text)

    def _new_token(
        self, user: str, label: str, life: timedelta, *, images: bool = False
    ) -> tuple[Token, str]:
        created_at = self._now().replace(microsecond=0)
        record = Token(
            id=secrets.token_hex(16),
            user=user,
            label=label,
            created_at=created_at,
            expires_at=created_at + life,
        )
        return record, self._in_use.sign(record, images=images)

    def _of_account(self, user: str) -> tuple[Token, str]:
        return self._new_token(user, "service account", MAX_TOKEN_LIFE)

    def image_token(self, user: str, image: ResourceURI) -> str:
        """A token with which an engine pulls one image in a user's name, soon.

        What it allows is at most what they may do themselves at that moment.
        """
        return self._in_use.sign_for_images(user, IMAGE_TOKEN_LIFE, pulls=image)

    def push_token(self, user: str, image: ResourceURI, base: ResourceURI | None) -> str:
        """The same for an engine that pushes one image, which may take long.

        Of its ``base`` it may be read, so that layers of that need not be sent.
        """
        return self._in_use.sign_for_images(user, PUSH_TOKEN_LIFE, pulls=base, pushes=image)

    async def permissions(self, user: str) -> list[Permission]:
        """What comes with being a user, and what they themselves were given. Raises NotFound."""
        await self.user(user)
        given = await self._database.read(lambda c: of_subject(c, user))
        return [Permission(grant.uri, grant.action) for grant in given]

    async def tokens(self, user: str) -> list[Token]:
        """A user's tokens, oldest first, without their text."""
        return await self._database.read(lambda connection: tables.list_tokens(connection, user))

    async def revoke_token(self, user: str, token_id: str) -> None:
        """End a token at once. Raises NotFound, Conflict where it is revoked already."""
        known = {token.id for token in await self.tokens(user)}
        if token_id not in known:
            raise NotFound(f"Token '{token_id}' was not found.")
        now = self._now()
        if not await self._end(
            [(user, token_id)],
            lambda connection, _: tables.revoke_token(connection, user, token_id, now),
        ):
            raise Conflict(f"Token '{token_id}' is revoked already.")
        log.info("token revoked", user=user, token=token_id)

    async def jobs_with_tokens(self) -> list[str]:
        """The ids of jobs, over or not, that were given tokens which have not ended."""
        return await self._database.read(tables.jobs_with_tokens)

    async def end_tokens_of_jobs(self, job_ids: Sequence[str]) -> None:
        """End what jobs that are over were given; from this call on it is not good any more."""
        now = self._now()
        self._in_use.refuse_jobs(job_ids)
        for start in range(0, len(job_ids), JOBS_AT_ONCE):
            ids = job_ids[start : start + JOBS_AT_ONCE]
            ending = await self._database.read(partial(tables.tokens_of_jobs, job_ids=ids))
            if ending:
                self._tell(ending)
                await self._revoke_all(ending, now)
        self._in_use.forget_jobs(job_ids)

    async def _revoke_all(self, ending: Sequence[tuple[str, str]], now: datetime) -> None:
        # A job's end is not to wait for them: it is heard of in a moment.
        with self._peers.telling(waits=False) as telling:
            await self._database.write(lambda c: _revoke(c, ending, now, telling))
            await telling.heard()

    def _tell(self, ended: Iterable[tuple[str, str | None]]) -> None:
        for user, token_id in ended:
            for listener in self._listeners:
                listener(user, token_id)

    async def _end(
        self,
        ending: Sequence[tuple[str, str | None]],
        change: Callable[[Connection, Telling], bool],
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> bool:
        """Make a change that ends tokens, and tell of it; False where nothing changed.

        ``ending`` is (user, token id), or (user, None) for all of a user's, once it is made.
        When this returns it holds on every server. ``then`` is awaited before the others are.
        """

        def write(telling: Telling, connection: Connection) -> bool:
            is_changed = change(connection, telling)
            words = [f"{user} {token_id or ALL_TOKENS}" for user, token_id in ending]
            telling.record(connection, Topic.TOKENS, words)
            return is_changed

        async def both() -> bool:
            with self._peers.telling() as telling:
                try:
                    is_changed = await self._database.write(partial(write, telling))
                finally:
                    # After an error as well: a database may fail just after it has made the change.
                    self._in_use.forget()
                    self._tell(ending)
                    if then is not None:
                        await then()
                await telling.heard()
            return is_changed

        # Whoever asked may leave before it is written: the token must end for all that.
        return await asyncio.shield(both())

    def _drop(self, words: Words) -> None:
        """Forget what another server has ended."""
        self._in_use.forget()
        for word in words or ():
            user, _, token_id = word.partition(" ")
            self._tell([(user, None if token_id == ALL_TOKENS else token_id)])

    async def _look_again(self, words: Words) -> None:
        """Where nobody knows what has ended: look at each token with which something goes on."""
        if words is not None:
            return
        held = {pair for open_tokens in self._open_tokens for pair in open_tokens()}
        ids = sorted(token_id for _, token_id in held)
        try:
            good = await self._database.read(partial(tables.good_among, token_ids=ids))
        except Unavailable:
            # Nobody tells a second time. Whoever is good comes back, and is looked at then.
            good = set()
        self._tell(pair for pair in held if pair[1] not in good)

    async def drop_old_tokens(self) -> int:
        """Forget tokens that expired or were revoked over a day ago; returns how many."""
        before = self._now() - timedelta(days=1)
        return await self._database.write(
            lambda connection: tables.drop_old_tokens(connection, before)
        )


def _revoke(
    connection: Connection, ending: Sequence[tuple[str, str]], now: datetime, telling: Telling
) -> None:
    for user, token_id in ending:
        tables.revoke_token(connection, user, token_id, now)
    telling.record(connection, Topic.TOKENS, [f"{user} {it}" for user, it in ending])


def _check_not_last(connection: Connection, name: str) -> None:
    if tables.admins(connection) == [name]:
        raise Conflict(
            f"{name} is the last administrator, without whom nobody could add users: make"
            " another one first, with `neuro admin add-user --admin NAME`."
        )


def _identity(signed: SignedToken, grants: Grants) -> Identity:
    """Who shows a token, as what they hold makes them."""
    user, token_id, until = signed.user, signed.token_id, signed.until or signed.expires_at
    if signed.images or signed.named:
        only = grants.only_of("image") if signed.images else grants.only(signed.named)
        return RegistryIdentity(user, only, token_id, until)
    if signed.job is None:
        kind = ServiceIdentity if signed.is_service else Identity
        return kind(user, grants, token_id, until)
    return JobIdentity(user, grants, token_id, until, job_id=signed.job)
