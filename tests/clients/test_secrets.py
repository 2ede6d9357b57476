"""Secrets with the reference clients. See docs/reference/wire-protocol.md#secrets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.clients.flow_client import FlowClient
from tests.clients.reference_client import ReferenceClient
from tests.server_process import ServerProcess

LIVE = """\
kind: live
jobs:
  show:
    image: ubuntu
    env:
      TOKEN: secret:{key}
    volumes:
      - secret:{key}:/keys/token
    bash: echo $TOKEN; cat /keys/token
"""


def test_secrets_are_made_listed_used_and_removed(
    client: ReferenceClient, named: Callable[[str], str], tmp_path: Path
) -> None:
    key, file = named("token"), tmp_path / "value"
    file.write_bytes(b"from a file")
    client.run("secret", "add", key, "plain")
    assert key in client.run("-q", "secret", "ls").out.split()
    script = "echo $TOKEN; cat /keys/one"

    done = client.run(
        *("run", "--no-tty", "-e", f"TOKEN=secret:{key}", "-v", f"secret:{key}:/keys/one"),
        *("ubuntu", "--", "sh", "-c", script),
    )
    assert "plain\nplain" in done.out.replace("\r", "")
    client.run("secret", "add", key, f"@{file}")
    again = client.run("run", "--no-tty", "-e", f"TOKEN=secret:{key}", "ubuntu", "printenv TOKEN")
    assert "from a file" in again.out

    client.run("secret", "rm", key)

    assert key not in client.run("-q", "secret", "ls").out.split()
    assert client.run("secret", "rm", key, ok=False).code == 72
    refused = client.run("run", "-e", f"TOKEN=secret:{key}", "ubuntu", "true", ok=False)
    assert refused.code != 0
    assert "does not exist" in refused.out + refused.err


def test_a_job_of_a_flow_gets_secrets(
    make_client: Callable[..., ReferenceClient],
    server: ServerProcess,
    named: Callable[[str], str],
) -> None:
    client = make_client()
    client.run("config", "login-with-token", server.token, server.url)
    flow, key = FlowClient(client, named("secretive").replace("-", "_")), named("flow-token")
    client.run("secret", "add", key, "of a flow")
    flow.write("live", LIVE.format(key=key))

    assert flow.run("run", "show").out.count("of a flow") == 2
