"""Sharing with the reference clients (docs/reference/wire-protocol.md#permissions)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.errors import AlreadyExists
from tests.clients.reference_client import ReferenceClient
from tests.server_process import ServerProcess

MakeClient = Callable[..., ReferenceClient]


@pytest.fixture(scope="module")
def friend(
    make_client: MakeClient, server: ServerProcess, named: Callable[[str], str]
) -> ReferenceClient:
    """Another person, logged in."""
    admin = Client.blocking(server.url, server.token)
    name = named("friend")
    run(admin.users.add(name))
    token = run(admin.users.create_token(name)).token
    client = make_client(name)
    client.run("config", "login-with-token", str(token), server.url)
    return client


def rows(client: ReferenceClient, *words: str) -> list[list[str]]:
    return [line.split() for line in client.run("acl", *words).lines]


def test_what_is_shared_is_listed_used_and_taken_back(
    client: ReferenceClient, friend: ReferenceClient, named: Callable[[str], str]
) -> None:
    folder = named("shared")
    full = f"storage://default/{client.user}/{folder}"
    client.run("mkdir", f"storage:{folder}")
    assert friend.run("ls", full, ok=False).code == 72

    granted = client.run("share", f"storage:{folder}", friend.user, "read")

    assert (granted.out, granted.err) == ("", "")
    assert friend.run("ls", full).code == 0
    assert [full, "read"] in rows(friend, "ls", "--full-uri")
    assert [full, "read", friend.user] in rows(client, "ls", "--shared", "--full-uri")
    assert [full, "read"] in rows(friend, "ls", "--full-uri", "storage:")
    assert rows(friend, "ls", "--full-uri", f"{full}/below") == [[f"{full}/below", "read"]]
    own = [[f"storage://default/{friend.user}", "manage"], [f"user://{friend.user}", "read"]]
    assert all(row in rows(friend, "ls", "--full-uri") for row in own)

    client.run("acl", "revoke", f"storage:{folder}", friend.user)

    assert friend.run("ls", full, ok=False).code == 72
    again = client.run("acl", "revoke", f"storage:{folder}", friend.user, ok=False)
    assert (again.code, "Operation has no effect" in again.err) == (127, True)


def test_what_cannot_be_shared_is_told(client: ReferenceClient, friend: ReferenceClient) -> None:
    nobody = client.run("share", "storage:x", "nobody-here", "read", ok=False)
    theirs = friend.run("share", f"storage://default/{client.user}", friend.user, "read", ok=False)
    others = friend.run("acl", "ls", "-u", client.user, ok=False)

    assert 'user "nobody-here" was not found' in nobody.err
    assert theirs.code != 0
    assert (others.code, "Not enough permissions" in others.err) == (77, True)


def test_a_wider_right_than_the_one_that_is_granted_stays(
    client: ReferenceClient, friend: ReferenceClient, named: Callable[[str], str]
) -> None:
    uri = f"job:{named('wide')}"
    client.run("acl", "grant", uri, friend.user, "manage")
    client.run("acl", "grant", uri, friend.user, "read")

    full = f"job://default/{client.user}/{named('wide')}"
    assert [full, "manage"] in rows(friend, "ls", "--full-uri", "job:")
    client.run("acl", "revoke", uri, friend.user)


def test_a_role_gives_what_it_was_granted(
    client: ReferenceClient, friend: ReferenceClient, named: Callable[[str], str]
) -> None:
    role = f"{client.user}/roles/{named('team')}"
    full = f"storage://default/{client.user}/{named('of-a-role')}"
    client.run("acl", "add-role", role)
    again = client.run("acl", "add-role", role, ok=False)
    assert "already exists" in again.err
    client.run("acl", "grant", full, role, "write")
    client.run("acl", "grant", f"role://{role}", friend.user, "manage")

    assert [full, "write"] in rows(friend, "ls", "--full-uri")
    assert [full, "write"] in rows(client, "ls", "--full-uri", "-u", role)
    if client.version != "21.12.2":
        assert [role] in rows(friend, "list-roles")

    client.run("acl", "remove-role", role)

    assert [full, "write"] not in rows(friend, "ls", "--full-uri")


def test_a_job_is_shared_when_it_is_started(
    client: ReferenceClient, friend: ReferenceClient, server: ServerProcess
) -> None:
    job = client.submit("--share", friend.user, "ubuntu", "--", "sleep", "1000")

    assert job in friend.run("-q", "ps", "--owner", client.user).out
    assert friend.status(f"job://default/{client.user}/{job}")["Status"] == "running"
    assert friend.run("kill", job).code == 0
    with pytest.raises(AlreadyExists):
        run(Client.blocking(server.url, server.token).users.add(friend.user))
