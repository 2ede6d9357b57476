"""Every route, asked by a stranger for things that are there, and then by their owner; and by those
whom the owner gave a part of it.

The owner's turn shows that each call is right in itself: so nothing but the stranger's lack of
rights has refused it before. A route that is not in the table fails the first test.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.bakes import (
    AttemptRequest,
    BakeImageRequest,
    BakeRequest,
    CacheEntryRequest,
    ConfigFileRequest,
    ConfigsMeta,
    ScheduledFile,
    ScheduleRequest,
    TaskRequest,
    TaskStatus,
)
from neuro.domain.errors import NotFound
from neuro.domain.permissions import Action
from tests.server.jobs import running
from tests.server.test_routes import PUBLIC
from tests.server_process import ServerProcess

# What is nobody's in particular, or changes nothing: whoever has a token may ask.
FOR_EVERYBODY = {
    ("GET", "/api/v1/monitoring/jobs/capacity"),
    ("GET", "/api/v1/secured-ping"),
    ("GET", "/api/v1/server"),
}
# What a stranger may do too, with things of their own.
MAKES_ONES_OWN = {("POST", "/api/v1/jobs"), ("POST", "/api/v1/flow/projects")}
CONFIGS = {"workspace": "/ws", "flow_config_id": "f"}
# A bake has its owner's rights, so nobody else writes what it runs; cached outcomes are each one's.
BAKES_OWN = {
    ("PATCH", "/flow/bakes/{bake}"),
    ("POST", "/flow/tasks"),
    ("PUT", "/flow/tasks/replace"),
    ("PUT", "/flow/tasks/batch"),
    ("POST", "/flow/config_files"),
    ("POST", "/flow/bake_images"),
    ("PATCH", "/flow/bake_images/{image}"),
    ("PUT", "/flow/attempts/replace"),
    ("POST", "/flow/attempts"),
    ("GET", "/flow/cache_entries/by_key"),
}
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Ask:
    """One call: of which route, with which values. ``lists``: it is answered, with nothing."""

    method: str
    route: str
    query: str = ""
    body: Any = None
    socket: bool = False
    lists: bool = False
    path: str = ""

    @property
    def operation(self) -> tuple[str, str]:
        return self.method, f"/api/v1{self.route}"

    @property
    def needs(self) -> Action | None:
        """What it takes on the owner's things; None for what only they and administrators do."""
        if (self.method, self.route) in BAKES_OWN:
            return None
        if self.route.startswith("/users"):
            is_sharing = self.route.endswith(("/permissions", "/explain"))
            own_list = (self.method, self.route) == ("GET", "/users/{user}/permissions")
            return Action.MANAGE if is_sharing and not own_list else None
        changes = self.method != "GET" and "op=FETCH" not in self.query
        into_job = self.route.endswith(("/exec", "/port_forward/{port}"))
        return Action.WRITE if changes or into_job else Action.READ


@dataclass(frozen=True)
class Things:
    """One of everything that is the owner's, by the names that routes have for it."""

    ids: dict[str, str]

    def asks(self) -> list[Ask]:
        """A right call of every route, the ones that end something last."""
        ids = self.ids
        project, bake, attempt = ids["project"], ids["bake"], ids["attempt"]
        job, jobs = "/jobs/{job}", "/monitoring/jobs/{job}"
        image = {"bake_id": bake, "ref": "n", "yaml_defs": ["t"]}
        config = {"bake_id": bake, "filename": "n", "content": ""}
        task = {"attempt_id": attempt, "yaml_id": "t", "statuses": []}
        live = {"yaml_id": "train", "project_id": project, "multi": False, "tags": []}
        tried = {"bake_id": bake, "number": 1, "result": "failed", "configs_meta": CONFIGS}
        key = f"?project_id={project}&batch=b&task_id=t&key=k"
        home = f"storage://default/{ids['user']}"
        file, folder = f"/{ids['user']}/secret.txt", f"/{ids['user']}"
        return [
            Ask("GET", "/users"),
            Ask("POST", "/users", body={"name": "mallory"}),
            Ask("GET", "/users/{user}"),
            Ask("GET", "/users/{user}/permissions"),
            Ask("GET", "/users/{user}/permissions/shared"),
            Ask("GET", "/users/{user}/permissions/explain", f"?uri={home}"),
            Ask("GET", "/users/{user}/subroles"),
            Ask("POST", "/users/{user}/permissions", body=[{"uri": home, "action": "read"}]),
            Ask("DELETE", "/users/{user}/permissions", f"?uri={home}"),
            Ask("GET", "/users/{user}/removal"),
            Ask("GET", "/users/{user}/tokens"),
            Ask("POST", "/users/{user}/tokens", body={"label": "stolen"}),
            Ask("GET", "/jobs", lists=True),
            Ask("GET", "/jobs", f"?owner={ids['user']}", lists=True),
            Ask("GET", job),
            Ask("PUT", job + "/max_run_time_minutes", body={"max_run_time_minutes": 9}),
            Ask("GET", jobs + "/log"),
            Ask("GET", jobs + "/log_ws", socket=True),
            Ask("GET", jobs + "/attach", "?stdout=1", socket=True),
            Ask("GET", jobs + "/exec", "?cmd=true", socket=True),
            Ask("GET", jobs + "/top", socket=True),
            Ask("GET", jobs + "/port_forward/{port}", socket=True),
            Ask("POST", jobs + "/save", body={"container": {"image": "x"}}),
            Ask("GET", "/storage{path}", "?op=LISTSTATUS", path=folder),
            Ask("GET", "/storage{path}", "?op=GETFILESTATUS", path=file),
            Ask("GET", "/storage{path}", "?op=GETDISKUSAGE", path=folder),
            Ask("GET", "/storage{path}", "?op=OPEN", path=file),
            Ask("POST", "/storage{path}", "?op=FETCH", {"paths": ["secret.txt"]}, path=folder),
            Ask("PUT", "/storage{path}", "?op=CREATE", b"changed", path=file),
            Ask("PUT", "/storage{path}", "?op=MKDIRS", path=f"{folder}/made"),
            Ask("PATCH", "/storage{path}", "?op=WRITE", b"changed", path=file),
            Ask("GET", "/flow/projects", lists=True),
            Ask("GET", "/flow/projects/by_name", f"?name=guarded&owner={ids['user']}"),
            Ask("GET", "/flow/projects/{project}"),
            Ask("GET", "/flow/live_jobs", f"?project_id={project}", lists=True),
            Ask("POST", "/flow/live_jobs", body={**live, "yaml_id": "new"}),
            Ask("PUT", "/flow/live_jobs/replace", body=live),
            Ask("GET", "/flow/live_jobs/by_yaml_id", f"?project_id={project}&yaml_id=train"),
            Ask("GET", "/flow/live_jobs/{live_job}"),
            Ask("GET", "/flow/bakes", f"?project_id={project}", lists=True),
            Ask("POST", "/flow/bakes", body={"project_id": project, "batch": "b", "graphs": {}}),
            Ask("GET", "/flow/bakes/by_name", f"?project_id={project}&name=shared"),
            Ask("GET", "/flow/bakes/{bake}"),
            Ask("PATCH", "/flow/bakes/{bake}", body={"graphs": {}}),
            Ask("GET", "/flow/attempts", f"?bake_id={bake}", lists=True),
            Ask("GET", "/flow/attempts/by_number", f"?bake_id={bake}&number=-1"),
            Ask("GET", "/flow/attempts/{attempt}"),
            Ask("GET", "/flow/tasks", f"?attempt_id={attempt}", lists=True),
            Ask("POST", "/flow/tasks", body={**task, "yaml_id": "new"}),
            Ask("PUT", "/flow/tasks/replace", body=task),
            Ask("PUT", "/flow/tasks/batch", body=[task]),
            Ask("GET", "/flow/tasks/by_yaml_id", f"?attempt_id={attempt}&yaml_id=t"),
            Ask("GET", "/flow/tasks/{task}"),
            Ask("POST", "/flow/config_files", body=config),
            Ask("GET", "/flow/config_files/{file}"),
            Ask("GET", "/flow/bake_images", f"?bake_id={bake}", lists=True),
            Ask("POST", "/flow/bake_images", body=image),
            Ask("GET", "/flow/bake_images/by_ref", f"?bake_id={bake}&ref=r"),
            Ask("GET", "/flow/bake_images/{image}"),
            Ask("PATCH", "/flow/bake_images/{image}", body={"status": "built"}),
            Ask(
                "POST",
                "/flow/cache_entries",
                body={"project_id": project, "batch": "b", "task_id": "t", "key": "n"},
            ),
            Ask("GET", "/flow/cache_entries/by_key", key),
            Ask("GET", "/flow/cache_entries/{entry}"),
            Ask("GET", "/flow/schedules", f"?project_id={project}", lists=True),
            Ask(
                "PUT",
                "/flow/schedules",
                body={
                    "project_id": project,
                    "batch": "b",
                    "cron": "0 3 1 1 *",
                    "timezone": "UTC",
                    "workspace": "/ws",
                    "graphs": {},
                    "files": [{"role": "flow", "filename": "b.yml", "content": "kind: batch"}],
                },
            ),
            Ask("POST", "/flow/attempts/{attempt}/executor", body={}),
            # These end what the others ask for.
            Ask("PUT", "/flow/attempts/replace", body=tried),
            Ask("POST", "/flow/attempts", body={**tried, "number": 2}),
            Ask("DELETE", "/flow/cache_entries", f"?project_id={project}"),
            Ask("DELETE", "/flow/schedules/{schedule}"),
            Ask("DELETE", "/flow/projects/{project}"),
            Ask("POST", "/storage{path}", f"?op=RENAME&destination={folder}/other", path=file),
            Ask("DELETE", "/storage{path}", "?op=DELETE", path=f"{folder}/other"),
            Ask("POST", jobs + "/kill", body={}),
            Ask("DELETE", job),
            Ask("DELETE", "/users/{user}/tokens/{token}"),
        ]


# Streams without an end: their first line is all that is asked for. The state of an owner's bake
# and the events of a job have tests of their own for what they say (test_bakes_access.py).
ENDLESS = [
    Ask("GET", "/jobs/events", lists=True),
    Ask("GET", "/flow/bakes/{bake}/events"),
]
# The owner is the last administrator, and stays.
LAST = Ask("DELETE", "/users/{user}")


@pytest.fixture
async def things(client: Client) -> AsyncIterator[Things]:
    """The owner's things."""
    project = await client.flows.create_project("guarded")
    live = await client.flows.replace_live_job(project.id, "train", multi=False, tags=[])
    bakes = client.bakes
    bake = await bakes.create(
        BakeRequest(project_id=project.id, batch="b", graphs={}, name="shared")
    )
    attempt = await bakes.create_attempt(
        AttemptRequest(
            bake_id=bake.id,
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=ConfigsMeta(workspace="/ws", flow_config_id="f"),
        )
    )
    task = await bakes.create_task(TaskRequest(attempt_id=attempt.id, yaml_id="t"))
    file = await bakes.add_file(ConfigFileRequest(bake_id=bake.id, filename="f", content=""))
    image = await bakes.add_image(BakeImageRequest(bake_id=bake.id, ref="r", yaml_defs=["t"]))
    entry = await bakes.add_cache_entry(
        CacheEntryRequest(project_id=project.id, batch="b", task_id="t", key="k")
    )
    schedule = await bakes.put_schedule(
        ScheduleRequest(
            project_id=project.id,
            batch="b",
            cron="0 3 1 1 *",
            timezone="UTC",
            workspace="/ws",
            graphs={},
            files=[ScheduledFile(role="flow", filename="b.yml", content="kind: batch")],
        )
    )
    await client.storage.create(f"storage:/{client.user}/secret.txt", b"secret")
    token = await client.users.create_token(client.user, label="spare")
    job = await running(client, "sleep 1000")
    yield Things(
        {
            "project": project.id,
            "live_job": live.id,
            "bake": bake.id,
            "attempt": attempt.id,
            "task": task.id,
            "file": file.id,
            "image": image.id,
            "entry": entry.id,
            "schedule": schedule.id,
            "token": token.id,
            "job": job.id,
            "user": client.user,
            "port": "80",
        }
    )
    await client.jobs.kill(job.id)
    with suppress(NotFound):  # as the owner's turn ends with it
        await client.flows.delete_project(project.id)


class Caller:
    """Somebody with a token, without the SDK in between."""

    def __init__(self, session: aiohttp.ClientSession, server: ServerProcess, token: str) -> None:
        self._session = session
        self._server = server
        self._headers = {"Authorization": f"Bearer {token}"}

    async def ask(self, things: Things, ask: Ask) -> tuple[int, bytes]:
        """The status and the body; of a stream that does not end, its beginning."""
        path = ask.route.replace("{path}", ask.path)
        for name, value in things.ids.items():
            path = path.replace("{" + name + "}", value)
        address = self._server.url + path + ask.query
        if ask.socket:
            try:
                async with self._session.ws_connect(address, headers=self._headers):
                    return 101, b""
            except aiohttp.WSServerHandshakeError as error:
                return error.status, b""
        headers = dict(self._headers)
        body: dict[str, Any] = {}
        if isinstance(ask.body, bytes):
            headers |= BYTES
            if ask.method == "PATCH":
                headers["Content-Range"] = f"bytes 0-{len(ask.body) - 1}/*"
            body["data"] = ask.body
        elif ask.body is not None:
            body["json"] = ask.body
        async with self._session.request(ask.method, address, headers=headers, **body) as answer:
            endless = ask in ENDLESS or ask.route.endswith("/log")
            if not endless or answer.status >= 400:
                return answer.status, await answer.read()
            return answer.status, await answer.content.readany()


@pytest.fixture
async def owner(server: ServerProcess) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(session, server, server.token)


@pytest.fixture
async def stranger(server: ServerProcess, client: Client, alice: Client) -> AsyncIterator[Caller]:
    token = await client.users.create_token(alice.user, label="stranger")
    assert token.token is not None
    async with aiohttp.ClientSession() as session:
        yield Caller(session, server, token.token)


def is_refused(status: int, body: bytes) -> bool:
    """Whether it was rights that were missing; jobs hide behind a 400 of their own."""
    if status == 400:
        return bool(json.loads(body)["code"] == "no_such_job")
    return status in (403, 404)


async def test_every_route_is_asked(server: ServerProcess, things: Things) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/openapi.json") as got:
        description = await got.json()

    served = {
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations
    }
    asked = {ask.operation for ask in [*things.asks(), *ENDLESS, LAST]}
    assert served - asked == PUBLIC | FOR_EVERYBODY | MAKES_ONES_OWN
    assert not asked - served


def is_done(ask: Ask, status: int, body: bytes) -> bool:
    """Whether a call was allowed, whatever came of it."""
    return status < 400 or (status, ask.operation[1]) in {
        (409, "/api/v1/users/{user}"),  # the last administrator
        (409, "/api/v1/users/{user}/removal"),
        (400, "/api/v1/users/{user}/permissions"),  # what comes with being a user
        (501, "/api/v1/monitoring/jobs/{job}/save"),
        # Nothing listens on the port.
        (502, "/api/v1/monitoring/jobs/{job}/port_forward/{port}"),
        (503, "/api/v1/monitoring/jobs/{job}/port_forward/{port}"),
    }


# What each is given, and what it is worth to them.
PEOPLE: dict[str, Action | None] = {
    "reader": Action.READ,
    "writer": Action.WRITE,
    "manager": Action.MANAGE,
    "member": Action.WRITE,
    "expired": None,
    "revoked": None,
}


async def _give(client: Client, who: str) -> None:
    """Give somebody all of the owner's: for a moment, by a role, or as they are called."""
    role = f"{client.user}/roles/of-{who}"
    to = who
    if who == "member":
        await client.permissions.add_role(role)
        await client.permissions.share(f"role://{role}", who, Action.READ)
        to = role
    for scheme in ("job", "storage", "flow"):
        uri = f"{scheme}://default/{client.user}"
        action = PEOPLE[who] or Action.MANAGE
        life = 2.0 if who == "expired" else None
        await client.permissions.share(uri, to, action, expires_in=life)
        while who == "expired" and (await client.permissions.explain(uri, who)).action:
            await asyncio.sleep(0.05)
        if who == "revoked":
            await client.permissions.revoke(uri, to)


@pytest.mark.parametrize("who", PEOPLE)
async def test_each_gets_what_they_were_given_and_no_more(
    things: Things, client: Client, server: ServerProcess, who: str
) -> None:
    await client.users.add(who)
    await _give(client, who)
    token = (await client.users.create_token(who)).token or ""
    theirs = [value.encode() for name, value in things.ids.items() if name not in ("user", "port")]
    has = PEOPLE[who]
    async with aiohttp.ClientSession() as session:
        caller = Caller(session, server, token)
        for ask in [*ENDLESS, *things.asks(), LAST]:
            status, body = await caller.ask(things, ask)
            may = has is not None and ask.needs is not None and has.includes(ask.needs)
            if ask.lists:
                assert status == 200, (ask, body)
                assert any(value in body for value in theirs) == may, (ask, body)
            elif may:
                assert is_done(ask, status, body), (ask, status, body)
            elif has is not None and ask.needs is not None:
                assert status == 403, (ask, status, body)
            else:
                assert is_refused(status, body), (ask, status, body)


async def test_a_stranger_gets_nothing_of_what_its_owner_gets(
    things: Things, stranger: Caller, owner: Caller
) -> None:
    theirs = [value.encode() for name, value in things.ids.items() if name not in ("user", "port")]
    for ask in [*things.asks(), *ENDLESS, LAST]:
        status, body = await stranger.ask(things, ask)
        if ask.lists:
            assert status == 200, (ask, body)
            assert not any(value in body for value in theirs), (ask, body)
        else:
            assert is_refused(status, body), (ask, status, body)

    for ask in [*ENDLESS, *things.asks(), LAST]:
        status, body = await owner.ask(things, ask)
        assert is_done(ask, status, body), (ask, status, body)
        if ask.lists:
            assert any(value in body for value in theirs), (ask, body)
