"""Service accounts: callers that are programs, each of one person. Knows no HTTP.

An account is a user in all that it does: it owns its jobs and files, and holds what it is granted.
It is no person: it issues no tokens, shares nothing, and has no accounts of its own. Its owner
manages all that is its, and takes it along when they go (see ``departure``).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import AlreadyExists, Conflict, NotFound
from neuro.domain.names import check_known_cluster, check_service_account_name
from neuro.domain.permissions import Action, account_permissions, owner_permissions
from neuro.domain.service_accounts import ServiceAccount, ServiceAccountRequest
from neuro.domain.uris import ResourceURI
from neuro.domain.users import Token
from neuro.server.access import tables
from neuro.server.access.grant_book import GrantBook
from neuro.server.access.identity import Identity
from neuro.server.access.sharing import unknown
from neuro.server.access.tokens import digest_of_token
from neuro.server.database.engine import Database

log = structlog.get_logger("neuro.access")

MAX_ACCOUNTS = 100  # of one person: their owner holds all that is theirs


class ServiceAccounts:
    """The service accounts of one installation. ``departure`` removes them."""

    def __init__(
        self,
        database: Database,
        book: GrantBook,
        cluster: str,
        new_token: Callable[[str], tuple[Token, str]],
        now: Callable[[], datetime],
    ) -> None:
        """``new_token`` makes one for a user, and its text; it is good once it is written down."""
        self._database = database
        self._book = book
        self._cluster = cluster
        self._new_token = new_token
        self._now = now

    async def create(
        self, owner: str, request: ServiceAccountRequest
    ) -> tuple[ServiceAccount, str]:
        """Make an account; returns it with the text of its token, which is nowhere else.

        Raises InvalidInput, AlreadyExists for a name that the owner has given to another, Conflict
        where they have too many.
        """
        if request.name is not None:
            check_service_account_name(request.name)
        check_known_cluster(request.default_cluster, self._cluster)
        # Two hyphens, which no person's name has: nobody is called like somebody's account.
        role = f"{owner}--{request.name or secrets.token_hex(4)}"
        account = ServiceAccount(
            id=f"service-account-{uuid.uuid4()}",
            name=request.name,
            owner=owner,
            role=role,
            default_cluster=self._cluster,
            default_project=request.default_project or role,
            default_org=request.default_org,
            created_at=self._now(),
        )
        record, text = self._new_token(role)

        def add(connection: Connection) -> None:
            if tables.hold_user(connection, owner) is None:
                raise unknown(owner)
            there = tables.service_accounts_of(connection, owner)
            if any(it.role == role for it in there):
                raise AlreadyExists(f"You have a service account '{request.name}' already.")
            if tables.is_retired(connection, role):
                raise Conflict(
                    f"What a service account '{request.name}' of yours has begun is still being"
                    " ended: try again in a moment."
                )
            if len(there) >= MAX_ACCOUNTS:
                raise Conflict(
                    f"You have {MAX_ACCOUNTS} service accounts, which is the most: remove some."
                )
            tables.add_service_account(
                connection,
                account,
                own=owner_permissions(role, self._cluster),
                owners=account_permissions(role, self._cluster),
            )
            tables.add_token(connection, record, digest_of_token(text))

        try:
            await self._book.change({owner, role}, add)
        except IntegrityError:  # Of two at once on PostgreSQL, neither saw the other.
            raise AlreadyExists(f"You have a service account '{request.name}' already.") from None
        log.info("service account added", user=owner, account=role)
        return account, text

    async def of(self, owner: str) -> list[ServiceAccount]:
        """Somebody's accounts, oldest first."""
        return await self._database.read(partial(tables.service_accounts_of, owner=owner))

    async def find(self, caller: Identity, action: Action, account: str) -> ServiceAccount:
        """The account with this id, or the caller's own of this name, for one who may ``action``.

        Raises NotFound, NotPermitted.
        """
        missing = NotFound(f"Service account '{account[:80]}' was not found.")
        found = await self._database.read(
            partial(tables.find_service_account, owner=caller.user, account=account)
        )
        if found is None:
            raise missing
        caller.require(ResourceURI("user", found.role), action, hidden=missing)
        return found
