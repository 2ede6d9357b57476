"""Service accounts over HTTP (docs/reference/wire-protocol.md#service-accounts)."""

from __future__ import annotations

import msgspec

from neuro.domain.permissions import Action
from neuro.domain.service_accounts import ServiceAccount, ServiceAccountRequest, packed_login
from neuro.server.access.departure import Departures
from neuro.server.access.routes import require_person
from neuro.server.access.service_accounts import ServiceAccounts
from neuro.server.http.origin import base_url
from neuro.server.http.routes import Call, Routes

PATH = "/api/v1/service_accounts"
SECTION = "service-accounts"
OWN = "Everybody has accounts of their own, and no others are shown."
FOUND_FIRST = "The account is named by its id, or by its name among one's own."


def service_account_routes(accounts: ServiceAccounts, departures: Departures) -> Routes:
    """The routes of service accounts."""
    api = Routes("service_accounts")

    @api.add("GET", PATH, section=SECTION, inside=OWN)
    async def list_service_accounts(call: Call) -> list[ServiceAccount]:
        """One's own service accounts, oldest first."""
        return await accounts.of(call.user)

    @api.add("POST", PATH, section=SECTION, inside=OWN)
    async def create_service_account(call: Call, body: ServiceAccountRequest) -> ServiceAccount:
        """Make a service account of one's own; its token is answered this once."""
        require_person(call)
        account, token = await accounts.create(call.user, body)
        url = f"{base_url(call.request)}/api/v1"
        login = packed_login(token, account.default_cluster, url)
        return msgspec.structs.replace(account, token=login)

    @api.add("GET", PATH + "/{account}", section=SECTION, inside=FOUND_FIRST)
    async def get_service_account(call: Call) -> ServiceAccount:
        """One service account."""
        return await accounts.find(call.identity, Action.READ, call.segment("account"))

    @api.add("DELETE", PATH + "/{account}", status=204, section=SECTION, inside=FOUND_FIRST)
    async def remove_service_account(call: Call) -> None:
        """Remove a service account: its tokens, jobs, bakes and schedules end, its files stay."""
        found = await accounts.find(call.identity, Action.MANAGE, call.segment("account"))
        require_person(call)
        await departures.remove(found.role)

    return api
