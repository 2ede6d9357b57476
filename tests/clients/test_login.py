"""Logging in, and what the client then knows (docs/reference/wire-protocol.md#configuration)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.users import Token
from tests.clients.reference_client import ReferenceClient
from tests.server_process import ServerProcess

MakeClient = Callable[..., ReferenceClient]


def _new_token(server: ServerProcess) -> Token:
    client = Client.blocking(server.url, server.token)
    return run(client.users.create_token(server.user, label="to be revoked"))


def _revoke(server: ServerProcess, token: Token) -> None:
    run(Client.blocking(server.url, server.token).users.revoke_token(server.user, token.id))


def test_the_client_is_the_one_from_the_index(client: ReferenceClient, version: str) -> None:
    assert version in client.run("--version").out


def test_a_token_logs_in(make_client: MakeClient, server: ServerProcess) -> None:
    client = make_client()

    outcome = client.run("config", "login-with-token", server.token, server.url)

    assert outcome.lines[0].startswith(f"Logged into {server.url}")
    assert client.run("config", "show-token").out.strip() == server.token


def test_a_login_shows_the_user_the_cluster_and_what_is_free(client: ReferenceClient) -> None:
    out = client.run("config", "show").out

    rows = [line.split() for line in out.splitlines()]
    assert ["User", "Name", client.user] in rows
    assert ["Current", "Cluster", "default"] in rows
    assert ["API", "URL", client.url] in rows
    small = next(row for row in rows if row[:1] == ["cpu-small"])
    huge = next(row for row in rows if row[:1] == ["cpu-huge"])
    assert int(small[-2]) > 0, "jobs available"
    assert huge[-2] == "0"


def test_clusters_are_listed_and_switched_to(client: ReferenceClient) -> None:
    assert "* Name: default" in client.run("config", "get-clusters").lines

    assert "default" in client.run("config", "switch-cluster", "default").out
    unknown = client.run("config", "switch-cluster", "nowhere", ok=False)

    assert unknown.code != 0
    assert "nowhere" in unknown.err


def test_a_wrong_token_does_not_log_in(make_client: MakeClient, server: ServerProcess) -> None:
    client = make_client()

    outcome = client.run("config", "login-with-token", "no.such.token", server.url, ok=False)

    assert outcome.code != 0
    assert "401" in outcome.err
    assert client.run("ps", ok=False).code == 70, "not logged in"


def test_a_revoked_token_is_refused_with_77(make_client: MakeClient, server: ServerProcess) -> None:
    client = make_client()
    token = _new_token(server)
    client.run("config", "login-with-token", token.token, server.url)
    client.run("ps")

    _revoke(server, token)

    outcome = client.run("ps", ok=False)
    assert outcome.code == 77
    assert "Cannot authenticate" in outcome.err


def test_a_server_that_is_gone_is_a_connection_error(
    make_client: MakeClient, server: ServerProcess
) -> None:
    client = make_client()

    outcome = client.run(
        "config", "login-with-token", server.token, "http://127.0.0.1:9/api/v1", ok=False
    )

    assert outcome.code == 74
    assert "Connection error" in outcome.err


def test_a_client_inside_a_job_is_logged_in_by_its_passed_config(
    make_client: MakeClient, client: ReferenceClient
) -> None:
    script = "printenv NEURO_PASSED_CONFIG; sleep 600"
    job = client.submit("--pass-config", "ubuntu", "--", "sh", "-c", script)
    with client.started("logs", job) as logs:
        blob = logs.expect("ey").strip()
    login = json.loads(base64.b64decode(blob))
    assert login.keys() == {"token", "cluster", "url", "org_name", "project_name"}
    assert (login["cluster"], login["project_name"]) == ("default", client.user)
    # The same blob in the environment of a client with an empty home.
    inside = make_client()
    shown = inside.run("-q", "ps", "-a", "-n", "no-such-job", NEURO_PASSED_CONFIG=blob)
    assert shown.out == ""
    # It ends with the job.
    client.run("kill", job)
    assert inside.run("ps", NEURO_PASSED_CONFIG=blob, ok=False).code != 0


def test_logging_out_forgets_the_token(make_client: MakeClient, server: ServerProcess) -> None:
    client = make_client()
    client.run("config", "login-with-token", server.token, server.url)

    assert "Logged out" in client.run("logout").out

    assert client.run("config", "show-token", ok=False).code == 70
