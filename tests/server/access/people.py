"""Somebody who owns one of everything, and everybody else who may ask for it."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

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
from neuro.domain.permissions import Action
from tests.server.access.rows import CONFIGS, MANIFEST, MANIFEST_TYPE, Row, Takes
from tests.server.jobs import running, submit
from tests.server.registry.client import Registry
from tests.server.test_passed_tokens import SAYS, token_of

# What each holds on all that is the owner's. A ``guest`` reads one job and one project; a
# ``keeper`` manages it for an hour; a ``member`` is in a role that is in the role that holds it;
# one who was ``demoted`` has a bake in the owner's project; a ``service`` is an account of somebody
# else's; a ``clerk`` may write to the cluster, which is less than its administrators may.
HOLDS: dict[str, Action | None] = {
    "reader": Action.READ,
    "writer": Action.WRITE,
    "manager": Action.MANAGE,
    "keeper": Action.MANAGE,
    "member": Action.WRITE,
    "demoted": Action.READ,
    "service": Action.MANAGE,
    "guest": Action.READ,
    "expired": None,
    "revoked": None,
    "stranger": None,
    "clerk": None,
}
# Without a token, with one that was revoked, and with one that has expired.
OUT = ("nobody", "signed-out", "late")
# By the tokens that a job of the owner's was given, and one of the administrator's.
JOBS = ("job", "admins-job")
PEOPLE = ("owner", "admin", *JOBS, *HOLDS, *OUT)
PROGRAMS = (*JOBS, "service")
LIVES = {"expired": 0.3, "keeper": 3600.0}  # seconds, of what they were given
PING = Row("GET", "/secured-ping", Takes.LOGIN)
BYTES = {"Content-Type": "application/octet-stream"}
# Of calls that were allowed, whatever came of them.
_ALLOWED = {
    # Nothing listens on the port.
    (502, "/api/v1/monitoring/jobs/{job}/port_forward/{port}"),
    (503, "/api/v1/monitoring/jobs/{job}/port_forward/{port}"),
}


class Caller:
    """Somebody with a token or without, and without the SDK in between."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, name: str, token: str | None
    ) -> None:
        self.name = name
        self.token = token or ""
        self._session = session
        self.url = url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def ask(self, ids: dict[str, str], row: Row) -> tuple[int, bytes]:
        """The status and the body; of a stream that does not end, its beginning."""
        path = row.route
        for name, value in {**ids, **row.at}.items():
            path = path.replace("{" + name + "}", value)
        top = self.url.removesuffix("/api/v1") if row.is_of_registry else self.url
        address = top + (path + row.query).replace("{me}", self.name)
        if row.socket:
            try:
                async with self._session.ws_connect(address, headers=self._headers):
                    return 101, b""
            except aiohttp.WSServerHandshakeError as error:
                return error.status, error.message.encode()
        headers, body = dict(self._headers), row.body
        if isinstance(body, bytes):
            headers |= {"Content-Type": MANIFEST_TYPE} if body is MANIFEST else BYTES
            if row.method == "PATCH":
                headers["Content-Range"] = f"bytes 0-{len(body) - 1}/*"
        sent: dict[str, Any] = {"data" if isinstance(body, bytes) else "json": body}
        async with self._session.request(row.method, address, headers=headers, **sent) as answer:
            if not row.endless or answer.status >= 400:
                return answer.status, await answer.read()
            return answer.status, await answer.content.readany()

    async def get(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """The answer of a call that is allowed."""
        async with self._session.request(
            method, self.url + path, headers=self._headers, json=body
        ) as answer:
            text = await answer.read()
            assert answer.status < 400, text
            return json.loads(text) if text else None


class Place:
    """One owner's things, and who asks for them: each is made when they are asked for first."""

    def __init__(self, session: aiohttp.ClientSession, url: str, admin: Caller) -> None:
        self.ids: dict[str, str] = {}
        self._session = session
        self._url = url
        self._admin = admin
        self._callers = {"admin": admin}
        self._own: dict[str, dict[str, str]] = {}

    async def open(self) -> None:
        """Make the owner and the things."""
        self._mark = secrets.token_hex(3)
        name = f"owner-{self._mark}"
        token = await _add(self._admin, name)
        async with Client.connect(self._url, token) as client:
            client.user = name
            self.ids, job_token = await _things(client)
        self.ids |= await _images(name, Registry(self._session, self._url, token))
        owner = self._callers["owner"] = self._caller(name, token)
        account = await owner.get("/service_accounts", "POST", {"name": "robot"})
        self.ids |= {"account": account["id"], "account_role": account["role"]}
        self._callers["job"] = self._caller(name, job_token)
        self._callers["nobody"] = self._caller(name, None)
        bystander = self.ids["bystander"] = f"bystander-{self._mark}"
        await _add(self._admin, bystander)
        # A grant that can be taken back.
        await _share(owner, bystander, [f"storage://default/{name}/known"], Action.READ)

    async def close(self) -> None:
        """Remove the owner, with whom jobs and bakes end; a caller may have done it."""
        job = self._own.get("admins-job", {}).get("speaker")
        if job is not None:
            await self._admin.get(f"/jobs/{job}", "DELETE")
        with suppress(AssertionError):
            await self._admin.get(f"/users/{self.ids['user']}", "DELETE")

    def ids_of(self, who: str) -> dict[str, str]:
        """What somebody asks for: the owner's things, or what they made of them themselves."""
        return self.ids | self._own.get(who, {})

    def _caller(self, name: str, token: str | None) -> Caller:
        return Caller(self._session, self._url, name, token)

    async def caller(self, who: str) -> Caller:
        """Somebody of ``PEOPLE``."""
        if who == "admins-job" and who not in self._callers:
            async with Client.connect(self._url, self._admin.token) as client:
                speaker, token = await _speaking_job(client)
            self._own[who] = {"speaker": speaker}
            self._callers[who] = self._caller(self._admin.name, token)
        elif who not in self._callers:
            name = f"{who}-{self._mark}"
            token = await _add(self._admin, name, life=1 if who == "late" else None)
            if who == "service":
                account = await self._caller(name, token).get("/service_accounts", "POST", {})
                name = account["role"]
                token = json.loads(base64.b64decode(account["token"]))["token"]
            caller = self._callers[who] = self._caller(name, token)
            if who in HOLDS:
                owner = self._callers["owner"]
                self._own[who] = await _give(self._admin, owner, caller, who, self.ids)
            elif who == "signed-out":
                for each in await self._admin.get(f"/users/{name}/tokens"):
                    await self._admin.get(f"/users/{name}/tokens/{each['id']}", "DELETE")
            while who == "late" and (await caller.ask({}, PING))[0] != 401:
                pass
        return self._callers[who]

    async def wrong(self, who: str, row: Row) -> str | None:
        """What somebody got that they should not get, or did not get that they should."""
        caller = await self.caller(who)
        status, body = await caller.ask(self.ids_of(who), row)
        fits, wanted = self._judge(who, row, status, body)
        if fits:
            return None
        asked = f"{row.method} {row.route}{row.query}"
        return f"{asked} by {who} must be {wanted}, and is {status}: {body[:300]!r}"

    def _judge(self, who: str, row: Row, status: int, body: bytes) -> tuple[bool, str]:
        if who in OUT:
            return status == 401, "refused without a token"
        allowed = may(who, row)
        if row.lists:
            shown = [name for name in self._theirs() if self.ids_of(who)[name].encode() in body]
            kept = who == "guest" and any(name.startswith("second") for name in shown)
            return (status, bool(shown), kept) == (200, allowed, False), "a list of what is shared"
        if allowed:
            if (row.by_person and who in PROGRAMS) or (row.forever and who == "keeper"):
                return status == 403, "forbidden"
            return status < 400 or (status, row.operation[1]) in _ALLOWED, "done"
        if status == 400:
            return json.loads(body)["code"] == "no_such_job", "hidden"
        sees = holds(who, row) is not None
        if row.takes in (Takes.SELF, Takes.ADMIN) or (row.of == "role" and not sees):
            return status in (403, 404), "refused"
        if sees and not row.hides:
            return status == 403, "forbidden"
        return status == 404 or (row.socket and status == 400), "hidden"

    def _theirs(self) -> list[str]:
        named = (
            "user",
            "account_role",
            "bake_name",
            "bystander",
            "port",
            "role",
            "role_uri",
            "job_name",
            "project_name",
            "blob",
            "open_job",
        )
        return [name for name in self.ids if name not in named]


def holds(who: str, row: Row) -> Action | None:
    """What somebody may do on what a row is about."""
    if who in ("owner", "admin", *JOBS):
        return Action.MANAGE
    if who == "guest" and (row.whole or row.scheme == "role"):
        return None
    return HOLDS.get(who)


def may(who: str, row: Row) -> bool:
    """Whether somebody is let do it."""
    is_owner, is_admin = who in ("owner", "job"), who in ("admin", "admins-job")
    action = row.takes.action
    if action is not None:
        held = holds(who, row)
        return held is not None and held.includes(action)
    return {
        Takes.LOGIN: True,
        Takes.OWNER: is_owner,
        Takes.SELF: is_owner or is_admin,
        Takes.ADMIN: is_admin,
    }[row.takes]


@asynccontextmanager
async def place(url: str, admin_token: str) -> AsyncIterator[Place]:
    """A new owner with new things, who goes with all of it."""
    async with aiohttp.ClientSession() as session:
        admin = Caller(session, url, "", admin_token)
        admin.name = (await admin.get("/config"))["user_name"]
        made = Place(session, url, admin)
        await made.open()
        try:
            yield made
        finally:
            await made.close()


async def _add(admin: Caller, name: str, life: float | None = None) -> str:
    await admin.get("/users", "POST", {"name": name})
    body = {"label": "tests", "expires_in": life}
    return str((await admin.get(f"/users/{name}/tokens", "POST", body))["token"])


async def _share(
    giver: Caller, to: str, uris: list[str], action: Action, life: float | None = None
) -> None:
    body = [{"uri": uri, "action": action, "expires_in": life} for uri in uris]
    await giver.get(_permissions(to), "POST", body)


def _permissions(subject: str) -> str:
    return f"/users/{subject.replace('/', ':')}/permissions"


async def _give(
    admin: Caller, owner: Caller, caller: Caller, who: str, ids: dict[str, str]
) -> dict[str, str]:
    """Give somebody all of the owner's: for a moment, by roles, or as they are called.

    Returns what they have of their own among it.
    """
    action, to, made = HOLDS[who] or Action.MANAGE, caller.name, dict[str, str]()
    uris = [f"{scheme}://default/{owner.name}" for scheme in ("job", "storage", "flow")]
    uris += [f"role://{owner.name}", f"user://{ids['account_role']}"]
    uris.append(f"image://default/{owner.name}")
    uris.append(f"secret://default/{owner.name}")
    if who == "stranger":
        return {}
    if who == "clerk":
        await _share(admin, to, ["cluster://default"], Action.WRITE)
        return {}
    if who == "guest":
        # By name and by id; and another's of the name of one that is not to be seen.
        uris = [f"storage://default/{owner.name}", f"job://default/{owner.name}/{ids['job_name']}"]
        uris.append(f"flow://default/{owner.name}/{ids['project']}")
        uris.append(f"image://default/{owner.name}/first")
        uris.append(f"secret://default/{owner.name}/{ids['secret']}")
        schemes = ("job", "flow", "image")
        others = [f"{scheme}://default/{ids['bystander']}/second" for scheme in schemes]
        await _share(admin, to, others, action)
    if who == "member":
        inner, outer = f"{owner.name}/inner", f"{owner.name}/outer"
        for role in (inner, outer):
            await owner.get("/users", "POST", {"name": role})
        await _share(owner, outer, [f"role://{inner}"], Action.READ)
        await _share(owner, to, [f"role://{outer}"], Action.READ)
        to = inner
    await _share(owner, to, uris, action, LIVES.get(who))
    if who == "demoted":
        await _share(owner, to, uris[2:3], Action.WRITE)
        async with Client.connect(caller.url, caller.token) as client:
            made = await _bake(client, ids["project"])
    if who == "revoked":
        kept = {"project_id": ids["project"], "batch": "b", "task_id": "t", "key": "k"}
        await caller.get("/flow/cache_entries", "POST", kept)
    for uri in uris:
        asked = f"{_permissions(to)}/explain?uri={uri}"
        while who == "expired" and (await owner.get(asked))["action"]:
            pass
        if who == "revoked" or (who == "demoted" and uri == uris[2]):
            await owner.get(f"{_permissions(to)}?uri={uri}", "DELETE")
    if who == "demoted":
        await _share(owner, to, uris[2:3], action)
    return made


async def _bake(client: Client, project: str) -> dict[str, str]:
    bakes = client.bakes
    name = f"of-{client.user}"
    request = BakeRequest(project_id=project, batch="b", graphs={}, name=name)
    bake = await bakes.create(request)
    attempt = await bakes.create_attempt(
        AttemptRequest(
            bake_id=bake.id,
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=ConfigsMeta(**CONFIGS),
        )
    )
    task = await bakes.create_task(TaskRequest(attempt_id=attempt.id, yaml_id="t"))
    file = await bakes.add_file(ConfigFileRequest(bake_id=bake.id, filename="f", content=""))
    image = await bakes.add_image(BakeImageRequest(bake_id=bake.id, ref="r", yaml_defs=["t"]))
    return {
        "bake": bake.id,
        "bake_name": name,
        "attempt": attempt.id,
        "task": task.id,
        "file": file.id,
        "image": image.id,
    }


async def _speaking_job(client: Client, **options: Any) -> tuple[str, str]:
    """A job, and the token that it was given."""
    job = await submit(client, f"sh -c '{SAYS}; sleep 1000'", pass_config=True, **options)
    return job.id, await token_of(client, job)


async def _images(owner: str, registry: Registry) -> dict[str, str]:
    """Two images, and a blob that neither needs."""
    first, second = f"{owner}/first", f"{owner}/second"
    for path in (first, second):
        await registry.push_image(path, "v1", [b"a layer"])
    blob = await registry.push_blob(first, b"spare")
    return {"repository": first, "second_repository": second, "blob": blob}


async def _things(client: Client) -> tuple[dict[str, str], str]:
    """One of everything, and the token of a job."""
    project = await client.flows.create_project("first")
    second = await client.flows.create_project("second")
    live = await client.flows.replace_live_job(project.id, "train", multi=False, tags=[])
    bakes = client.bakes
    baked = await _bake(client, project.id)
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
    for file in ("secret.txt", "moved.txt"):
        await client.storage.create(f"storage:/{client.user}/{file}", b"secret")
    await client.permissions.add_role(f"{client.user}/team")
    token = await client.users.create_token(client.user, label="spare")
    others = await submit(client, "true", name="second")
    mark = secrets.token_hex(4)
    secret, second_secret = f"shown-{mark}", f"hidden-{mark}"
    for key in (secret, second_secret):
        await client.secrets.put(key, b"value")
    uri = f"secret://default/{client.user}/{secret}"
    speaker, job_token = await _speaking_job(client, secret_env={"A": uri})
    job = await running(client, "sleep 1000", name="first")
    opened = await running(client, "sleep 1000", name="open")
    await client.permissions.share(
        f"job://default/{client.user}/{opened.id}", "public", Action.WRITE
    )
    ids = baked | {
        "secret": secret,
        "second_secret": second_secret,
        "open_job": opened.id,
        "project": project.id,
        "project_name": "first",
        "second_project": second.id,
        "live_job": live.id,
        "entry": entry.id,
        "schedule": schedule.id,
        "token": token.id,
        "job": job.id,
        "job_name": "first",
        "second_job": others.id,
        "second_speaker": speaker,
        "user": client.user,
        "role": f"{client.user}:team",
        "role_uri": f"{client.user}/team",
        "port": "80",
    }
    return ids, job_token
