"""Service accounts with the reference clients.

See docs/reference/wire-protocol.md#service-accounts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from tests.clients.reference_client import ReferenceClient

MakeClient = Callable[..., ReferenceClient]


def test_an_account_is_made_used_and_removed(
    client: ReferenceClient, make_client: MakeClient, named: Callable[[str], str]
) -> None:
    name, folder = named("robot"), named("for-robots")
    role = f"{client.user}--{name}"

    packed = client.run("-q", "service-account", "create", "--name", name).out.strip()
    token = json.loads(base64.b64decode(packed))["token"]

    listed = client.run("service-account", "ls").out
    assert (name in listed, role.split("--")[0] in listed) == (True, True)
    assert role in "".join(client.run("service-account", "get", name).out.split())
    robot = make_client(role)
    robot.run("config", "login-with-token", token, client.url)
    assert role in robot.run("config", "show").out
    client.run("mkdir", f"storage:{folder}")
    given = f"storage://default/{client.user}/{folder}"
    assert robot.run("ls", given, ok=False).code == 72
    client.run("acl", "grant", f"storage:{folder}", role, "read")
    assert robot.run("ls", given).code == 0
    job = robot.submit("ubuntu", "--", "sleep", "1000")
    assert job in client.run("-q", "ps", "--owner", role).out
    assert robot.run("acl", "grant", "storage:", client.user, "read", ok=False).code == 77

    client.run("service-account", "rm", name)

    assert robot.run("ps", ok=False).code == 77
    assert job not in client.run("-q", "ps", "--owner", role).out
    assert client.run("service-account", "get", name, ok=False).code == 72
