"""``neuro-flow`` of its day on live workflows: it runs its ``neuro`` for most of the work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neuro.client import Client
from neuro.client.blocking import run
from neuro.domain.flows import LiveJob
from tests.clients.flow_client import FlowClient
from tests.clients.reference_client import JOB_ID, ReferenceClient
from tests.server_process import ServerProcess

LIVE = """\
kind: live
title: A workflow
images:
  base:
    ref: ubuntu:latest
volumes:
  data:
    remote: storage:{project}/data
    mount: /data
    local: data
  settings:
    remote: storage:{project}/settings
    mount: /settings
    read_only: true
    local: settings
defaults:
  tags: [common]
  env:
    GREETING: hello
jobs:
  greet:
    image: ${{{{ images.base.ref }}}}
    params:
      who:
        default: world
        descr: Whom to greet
    volumes:
      - ${{{{ volumes.data.ref_rw }}}}
      - ${{{{ volumes.settings.ref_ro }}}}
    bash: |
      echo "$GREETING ${{{{ params.who }}}}"
      tr a-z A-Z < /data/input.txt > /data/output.txt
      touch /settings/x || echo "settings stay"
  sleeper:
    image: ubuntu
    detach: true
    cmd: sleep 1000
  worker:
    image: ubuntu
    multi: true
    detach: true
    bash: echo "working on ${{{{ multi.suffix }}}}"; sleep 1000
"""


@pytest.fixture(scope="module")
def make_flow(
    make_client: Callable[[str], ReferenceClient], server: ServerProcess
) -> Callable[[str, str], FlowClient]:
    """Makes a workspace of a user, from the name and a token."""

    def make(user: str, token: str) -> FlowClient:
        client = make_client(user)
        client.run("config", "login-with-token", token, server.url)
        flow = FlowClient(client, f"flow_{client.version.replace('.', '_')}")
        flow.write("live", LIVE.format(project=flow.project))
        for folder in ("data", "settings"):
            (flow.workspace / folder).mkdir()
        (flow.workspace / "data" / "input.txt").write_text("from here\n")
        return flow

    return make


@pytest.fixture(scope="module")
def flow(make_flow: Callable[[str, str], FlowClient], server: ServerProcess) -> FlowClient:
    """A workspace of the machine's owner."""
    return make_flow(server.user, server.token)


@pytest.fixture(scope="module")
def uploaded(flow: FlowClient) -> FlowClient:
    """The workspace with its volumes in the storage."""
    flow.run("mkvolumes")
    flow.run("upload", "ALL")
    return flow


@pytest.fixture(scope="module")
def known(server: ServerProcess) -> Callable[[FlowClient], dict[str, LiveJob] | None]:
    """What the server keeps of a workspace's live jobs; None without a project."""

    async def ask(name: str) -> dict[str, LiveJob] | None:
        async with Client.blocking(server.url, server.token) as client:
            project = await client.flows.project_by_name(name)
            if project is None:
                return None
            return {job.yaml_id: job for job in await client.flows.live_jobs(project.id)}

    return lambda flow: run(ask(flow.project))


def test_jobs_that_never_ran_are_listed(flow: FlowClient) -> None:
    jobs = flow.jobs()

    assert jobs.keys() >= {"greet", "sleeper"}


def test_volumes_go_up_and_down_and_away(uploaded: FlowClient) -> None:
    local = uploaded.workspace / "data" / "input.txt"
    assert uploaded.stored() == {"data", "settings"}
    local.unlink()

    uploaded.run("download", "data")

    assert local.read_text() == "from here\n"
    uploaded.run("clean", "settings")
    assert uploaded.stored() == {"data"}
    uploaded.run("mkvolumes")


def test_a_job_runs_with_its_params_environment_and_volumes(uploaded: FlowClient) -> None:
    outcome = uploaded.run("run", "greet", "-p", "who", "flow")

    assert "hello flow" in outcome.lines
    uploaded.run("download", "data")
    assert (uploaded.workspace / "data" / "output.txt").read_text() == "FROM HERE\n"
    log = uploaded.run("logs", "greet").lines
    assert log[0] == "hello flow"
    assert "settings stay" in log
    assert JOB_ID.fullmatch(uploaded.jobs()["greet"])


def test_the_server_knows_the_workflows_jobs(
    uploaded: FlowClient, known: Callable[[FlowClient], dict[str, LiveJob]]
) -> None:
    uploaded.run("run", "greet")

    jobs = known(uploaded)
    assert {name: job.multi for name, job in jobs.items()} == {
        "greet": False,
        "sleeper": False,
        "worker": True,
    }
    tag = uploaded.project.replace("_", "-")
    tags = {f"project:{tag}", "flow:live", "job:greet", "common"}
    assert set(jobs["greet"].tags) == tags


def test_a_running_job_is_not_started_twice_and_is_killed_once(flow: FlowClient) -> None:
    first = flow.run("run", "sleeper").job_id

    assert "is running, connecting" in flow.run("run", "sleeper").out
    assert flow.jobs()["sleeper"] == first
    rows = flow.run("status", "sleeper").out
    assert first in rows
    assert "running" in rows
    assert "Killed job sleeper" in flow.run("kill", "sleeper").out
    assert "Job sleeper is not running" in flow.run("kill", "sleeper").out


def test_a_multi_job_runs_side_by_side_and_all_end_together(flow: FlowClient) -> None:
    ids = {name: flow.run("run", "worker", "-s", name).job_id for name in ("one", "two")}

    jobs = flow.jobs()
    assert {f"worker {name}": job for name, job in ids.items()}.items() <= jobs.items()
    assert ids["two"] in flow.run("status", "worker", "two").out
    assert "suffix" in flow.run("status", "worker", code=2).err
    killed = flow.run("kill", "ALL").out
    assert "worker one" in killed
    assert "worker two" in killed
    assert flow.run("logs", "worker", "one").lines == ["working on one"]


def test_what_is_not_there_is_said(flow: FlowClient) -> None:
    outcome = flow.run("run", "nope", code=1)
    assert "Unknown job nope" in outcome.out + outcome.err
    outcome = flow.run("upload", "nope", code=1)
    assert "Unknown volume nope" in outcome.out + outcome.err


def test_a_project_is_removed_with_what_the_server_knew_of_it(
    flow: FlowClient, known: Callable[[FlowClient], dict[str, LiveJob] | None]
) -> None:
    flow.run("run", "sleeper")
    flow.run("kill", "ALL")
    assert known(flow)

    assert "successfully removed" in flow.run("delete-project", flow.project).out

    assert known(flow) is None
    assert "not found" in flow.run("delete-project", flow.project, code=1).err
    assert "sleeper" in flow.jobs()
    assert known(flow) == {}


def test_a_workspace_is_its_users(
    flow: FlowClient, make_flow: Callable[[str, str], FlowClient], server: ServerProcess
) -> None:
    async def token_of(name: str) -> str:
        async with Client.blocking(server.url, server.token) as client:
            await client.users.add(name)
            return (await client.users.create_token(name)).token or ""

    name = f"anna-{flow.version.replace('.', '-')}"
    flow.run("run", "sleeper")

    hers = make_flow(name, run(token_of(name)))

    assert hers.jobs()["sleeper"] == "N/A"
    assert "is not running" in hers.run("kill", "sleeper").out
    assert "Killed job sleeper" in flow.run("kill", "sleeper").out


def test_a_project_with_an_owner_runs_as_one_without(
    make_flow: Callable[[str, str], FlowClient], server: ServerProcess
) -> None:
    flow = make_flow(server.user, server.token)
    flow.write("project", f"id: {flow.project}\nowner: {server.user}\nrole: {server.user}/x\n")
    flow.run("mkvolumes")
    flow.run("upload", "ALL")

    outcome = flow.run("run", "greet", "-p", "who", "owner")

    assert "hello owner" in outcome.lines
