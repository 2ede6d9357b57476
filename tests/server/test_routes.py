"""Every route asks who is calling; the API's description is that of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate

import neuro
from neuro.client import Client
from neuro.domain.errors import NotPermitted
from neuro.domain.permissions import Action
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.http.errors import render_errors
from neuro.server.http.openapi import describe
from neuro.server.http.routes import AUTHENTICATOR, LARGE_BODIES, Call, Need, Routes, install
from neuro.server.http.streams import BYTES
from tests.server_process import ServerProcess

ONLY_SQLITE = "Routes and their description are the same whatever keeps the data."

PUBLIC = {
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/ping"),
    ("GET", "/api/v1/openapi.json"),
    ("GET", "/api/v1/docs"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/"),
}

# The id of an upload opens it, and nothing else: it is told only to who may push.
_UPLOAD = "/v2/{name}/blobs/uploads/{upload}"
BY_FORM = {("POST", "/v2/token")}  # The form has the token.
BY_ID = {("GET", _UPLOAD), ("PATCH", _UPLOAD), ("PUT", _UPLOAD), ("DELETE", _UPLOAD)}


class Anybody:
    """Knows every token."""

    async def authenticate(self, token: str) -> Identity:
        return Identity("anna", Grants(()), token)


async def _ask(call: Call) -> None:
    """Ask for nothing."""


NEED = Need("job://{cluster}", Action.READ, _ask)
VERSION = f"neuro/{neuro.__version__}"
A_JOB = "job-00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def _description(http: aiohttp.ClientSession, server: ServerProcess) -> Any:
    async with http.get(server.url + "/openapi.json") as response:
        return await response.json()


def _operations(description: Any) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, operations in description["paths"].items()
        for method in operations
    ]


def _address(server: ServerProcess, path: str, user: str) -> str:
    values = {
        "job": A_JOB,
        "live_job": A_JOB.replace("job", "live-job"),
        "project": A_JOB.replace("job", "projects"),
        "bake": A_JOB.replace("job", "bake"),
        "attempt": A_JOB.replace("job", "attempt"),
        "task": A_JOB.replace("job", "task"),
        "file": A_JOB.replace("job", "config-file"),
        "image": A_JOB.replace("job", "bake-image"),
        "entry": A_JOB.replace("job", "cache-entry"),
        "account": A_JOB.replace("job", "service-account"),
        "schedule": A_JOB.replace("job", "schedule"),
        "user": user,
        "owner": user,
        "name": f"{user}/image",
        "digest": "sha256:" + 64 * "0",
        "reference": "v1",
        "upload": "unknown",
        "slash": "/",
        "token": "x",
        "key": "unknown",
        "port": "80",
        "cluster": "default",
        "preset": "cpu-small",
    }
    for name, value in values.items():
        path = path.replace("{" + name + "}", value)
    return server.url.removesuffix("/api/v1") + path.replace("{path}", f"/{user}/file")


async def test_the_description_is_valid_openapi(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    description = await _description(http, server)

    validate(description)
    assert description["openapi"].startswith("3.1")


async def test_no_route_answers_without_a_token_but_the_public_ones(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    description = await _description(http, server)

    answers = {}
    for method, path in _operations(description):
        async with http.request(method, _address(server, path, "root")) as response:
            answers[method, path] = response.status

    open_to_all = {route for route, status in answers.items() if status != 401}
    assert open_to_all == PUBLIC | BY_ID | BY_FORM
    assert {answers[route] for route in BY_ID} == {404}


async def test_a_wrong_token_is_refused_everywhere_even_on_public_routes(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    headers = {"Authorization": "Bearer not.a.token"}

    for method, path in set(_operations(await _description(http, server))) - BY_ID - BY_FORM:
        async with http.request(
            method, _address(server, path, "root"), headers=headers
        ) as response:
            assert response.status == 401, (method, path)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/ready", 200), ("/api/v1/ping", 200), ("/nothing", 404)],
)
async def test_health_and_readiness_answer(
    http: aiohttp.ClientSession, server: ServerProcess, path: str, status: int
) -> None:
    async with http.get(server.url.removesuffix("/api/v1") + path) as response:
        assert response.status == status


async def test_who_has_a_token_can_ask_whether_it_is_known(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    answers = []
    for token in (server.token, "not.a.token"):
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get(server.url + "/secured-ping", headers=headers) as response:
            answers.append((response.status, response.headers["X-Service-Version"]))

    assert answers == [(200, VERSION), (401, VERSION)]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/flow/projects", 200),  # A stream.
        (f"/flow/bakes/{A_JOB.replace('job', 'bake')}", 404),
        ("/flow/nothing", 404),
        ("/ping", 200),
    ],
)
async def test_whatever_flows_answer_says_the_servers_version(
    http: aiohttp.ClientSession, server: ServerProcess, path: str, status: int
) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/x-ndjson"}

    async with http.get(server.url + path, headers=headers) as response:
        assert (response.status, response.headers["X-Service-Version"]) == (status, VERSION)


async def test_the_description_says_where_the_version_is(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    description = await _description(http, server)

    with_version = {
        path
        for path, operations in description["paths"].items()
        if any(
            "X-Service-Version" in answer.get("headers", {})
            for operation in operations.values()
            for answer in operation["responses"].values()
        )
    }
    flows = {path for path in description["paths"] if path.startswith("/api/v1/flow/")}
    assert with_version == {*flows, "/api/v1/ping", "/api/v1/secured-ping"}


async def test_browsers_are_told_what_is_here_and_how_a_job_is_reached(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    root = server.url.removesuffix("/api/v1")
    async with http.get(root) as front:
        assert (front.status, front.content_type) == (200, "text/html")
        assert "neuro login" in await front.text()
    for host, said in (
        ("job-1.jobs.localhost", "neuro port-forward job-1 PORT:PORT"),
        ("lab--anna.jobs.localhost:8085", "neuro port-forward job:/anna/lab PORT:PORT"),
    ):
        async with http.get(root + "/lab?token=1", headers={"Host": host}) as page:
            assert (page.status, page.content_type) == (404, "text/html")
            assert said in await page.text()


async def test_metrics_are_prometheus_text(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    async with http.get(server.url.removesuffix("/api/v1") + "/metrics") as response:
        text = await response.text()

    assert "neuro_http_requests_total" in text
    assert 'neuro_jobs_active{status="running"}' in text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"no json", 400, "not what this call takes"),
        (b"\xff\xfe", 400, "not what this call takes"),
        (b"[]", 400, "Expected `object`"),
        (b'{"image": 7}', 400, "$.image"),
        (b"{}", 400, "needs an image"),
        (b'{"image": "x", "description": "' + b"y" * (2 << 20) + b'"}', 413, "over"),
        (b"[" * 100_000, 400, "not what this call takes"),
    ],
)
async def test_a_bad_body_is_told_what_is_wrong(
    http: aiohttp.ClientSession, server: ServerProcess, body: bytes, status: int, words: str
) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}

    async with http.post(server.url + "/jobs", data=body, headers=headers) as response:
        answer = await response.json()

    assert (response.status, words in answer["error"]) == (status, True), answer


async def test_a_body_without_end_is_cut_off_and_the_server_lives(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * (1 << 20)

    headers = {"Authorization": f"Bearer {server.token}"}
    try:
        async with http.post(server.url + "/jobs", data=endless(), headers=headers) as response:
            assert response.status == 413
    except aiohttp.ClientError:
        pass  # The server hung up before all was sent, which is an answer too.

    async with http.get(server.url + "/ping") as response:
        assert response.status == 200


async def test_garbage_on_a_websocket_ends_it_and_nothing_else(
    http: aiohttp.ClientSession, server: ServerProcess, client: Client
) -> None:
    from tests.server.jobs import finished, running

    job = await running(client, "sleep 1000")
    address = f"{server.url}/monitoring/jobs/{job.id}/exec?cmd=cat&stdin=1"
    headers = {"Authorization": f"Bearer {server.token}"}

    async with http.ws_connect(address, headers=headers) as socket:
        await socket.send_bytes(b"")
        await socket.send_bytes(b"\x04not json")
        await socket.send_bytes(b"\x04" + b'{"width": -1, "height": 1e9}')
        await socket.send_bytes(b"\xff\xff\xff")
        await socket.send_bytes(b"\x00still here\n")
        assert (await socket.receive_bytes()) == b"\x01still here\n"
        await socket.send_str("text is an error")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE

    await client.jobs.kill(job.id)
    await finished(client, job)


@pytest.mark.parametrize("kind", [web.StreamResponse, web.WebSocketResponse, web.FileResponse])
def test_a_route_that_streams_says_so(kind: type[web.StreamResponse]) -> None:
    api = Routes("tests")

    async def stream(call: Call) -> web.StreamResponse:
        """Write piece by piece."""
        raise AssertionError("nobody calls")

    stream.__annotations__["return"] = kind

    with pytest.raises(TypeError, match="GET /forgotten may stream"):
        api.add("GET", "/forgotten", public=True)(stream)
    api.add("GET", "/declared", public=True, streams=BYTES)(stream)
    assert [route.path for route in api.items] == ["/declared"]


async def _nothing(call: Call) -> None:
    """Ask for nothing."""


@pytest.mark.parametrize(
    "said", [{}, {"public": True, "inside": "why"}, {"public": True, "needs": NEED}]
)
def test_a_route_says_once_who_may_call_it(said: dict[str, Any]) -> None:
    api = Routes("tests")

    with pytest.raises(TypeError, match="GET /forgotten: say who may call it"):
        api.add("GET", "/forgotten", **said)(_nothing)
    assert api.items == []


async def test_what_a_route_needs_is_asked_before_what_was_sent_is_read() -> None:
    api = Routes("tests")

    async def refuse(call: Call) -> None:
        raise NotPermitted("You may not.")

    @api.add("POST", "/guarded", needs=Need("job://{cluster}", Action.WRITE, refuse))
    async def guarded(call: Call, body: Texts) -> None:
        """Never get here."""
        raise AssertionError

    app = web.Application(middlewares=[render_errors])
    install(app, api.items)
    app[AUTHENTICATOR] = Anybody()
    async with TestServer(app) as server, TestClient(server) as caller:
        headers = {"Authorization": "Bearer x"}
        async with caller.post("/guarded", data=b"no json", headers=headers) as response:
            assert response.status == 403
    described = describe(api.items, "1")["paths"]["/guarded"]["post"]
    assert described["x-needs"] == {"uri": "job://{cluster}", "action": "write"}


async def test_the_description_says_of_every_route_who_may_call_it(
    http: aiohttp.ClientSession, server: ServerProcess
) -> None:
    for path, operations in (await _description(http, server))["paths"].items():
        for method, operation in operations.items():
            said = [key for key in ("x-needs", "x-asked-inside") if key in operation]
            assert len(said) == bool(operation["security"]), (method, path)


class Texts(msgspec.Struct, frozen=True):
    texts: list[str]


async def test_large_bodies_share_what_memory_there_is_for_them() -> None:
    api = Routes("tests")

    @api.add("POST", "/large", public=True, max_body=8 << 20)
    async def count(call: Call, body: Texts) -> int:
        """How long the texts are."""
        return sum(map(len, body.texts))

    app = web.Application(middlewares=[render_errors])
    install(app, api.items)
    app[LARGE_BODIES].free = 2 << 20
    async with TestServer(app) as server, TestClient(server) as caller:

        async def answer(size: int) -> int:
            async with caller.post("/large", json={"texts": ["x" * size]}) as response:
                return response.status

        small, fitting, large, too_large = 1 << 19, 5 << 19, 4 << 20, 9 << 20
        assert [await answer(size) for size in (small, fitting, large)] == [200, 200, 429]
        # What is over gives back what it had taken, whether it was counted or refused.
        assert [await answer(size) for size in (too_large, fitting)] == [413, 200]
        assert app[LARGE_BODIES].free == 2 << 20
