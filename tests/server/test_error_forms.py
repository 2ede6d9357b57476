"""Errors are in the form that their route declares, wherever they arise."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from openapi_spec_validator import validate

from neuro.domain.errors import Conflict, NotAuthenticated, NotFound, NotUnique, PlatformError
from neuro.domain.permissions import Action
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity, RegistryIdentity
from neuro.server.access.proofs import BASIC, TOKEN
from neuro.server.http.budgets import Budgets
from neuro.server.http.error_forms import OCI, OURS, PAGE, ErrorForm
from neuro.server.http.errors import render_errors
from neuro.server.http.limits import backpressure
from neuro.server.http.openapi import describe
from neuro.server.http.routes import AUTHENTICATOR, Call, Need, Route, Routes, install
from tests.server_process import ServerProcess

ONLY_SQLITE = "The form of an error does not depend on where anything is kept."

Caller = TestClient[web.Request, web.Application]
PREFIX = {OURS: "/api", OCI: "/v2", PAGE: "/pages"}


class Wanted(msgspec.Struct, frozen=True):
    n: int


class ManifestUnknown(PlatformError):
    """An error with a code of OCI's own."""

    code = "MANIFEST_UNKNOWN"
    status = 404
    detail = {"tag": "v1"}


class One:
    """Knows one token."""

    async def authenticate(self, token: str) -> Identity:
        if token != "good":
            raise NotAuthenticated("This token was revoked: get another.")
        return Identity("anna", Grants(()), token)


class Engine:
    """Whoever calls pulls an image."""

    async def authenticate(self, token: str) -> Identity:
        return RegistryIdentity("anna", Grants(()), token)


async def _refuse(call: Call) -> None:
    raise NotFound("There is no such thing.")


def _routes(form: ErrorForm) -> list[Route]:
    prefix = PREFIX[form]
    api = Routes(prefix[1:], inside="it is a test", proofs=(BASIC, TOKEN), errors=form)

    @api.add("GET", prefix + "/hidden", needs=Need("image://{cluster}", Action.READ, _refuse))
    async def hidden(call: Call) -> None:
        """Get nowhere."""

    @api.add("POST", prefix + "/things/{name}")
    async def take(call: Call, query: Wanted, body: Wanted) -> str:
        """Take a body."""
        return call.user

    @api.add("GET", prefix + "/broken")
    async def broken(call: Call) -> str:
        """Meet what nobody expected."""
        raise KeyError("s3cret")

    @api.add("GET", prefix + "/unknown")
    async def unknown(call: Call) -> str:
        """Say so with a code of its own."""
        raise ManifestUnknown("There is no manifest 'v1'.")

    @api.add("GET", prefix + "/taken")
    async def taken(call: Call) -> str:
        """Say that a name is taken."""
        raise NotUnique("<b>v1</b> is taken.")

    return api.items


def _application(requests: int = 99, in_flight: int = 99) -> web.Application:
    app = web.Application(middlewares=[render_errors, backpressure(requests=in_flight)])
    routes = [route for form in PREFIX for route in _routes(form)]
    install(app, routes, budgets=Budgets(requests=requests, streams=9))
    app[AUTHENTICATOR] = One()
    return app


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with TestServer(_application()) as server, TestClient(server) as client:
        yield client


GOOD = {"Authorization": "Bearer good"}
THING = "/things/x?n=1"
# What happens, the request, the status, and OCI's code for it.
TROUBLES: list[tuple[str, str, str, dict[str, Any], int, str]] = [
    ("nobody calls", "GET", "/broken", {}, 401, "UNAUTHORIZED"),
    ("bad token", "GET", "/broken", {"Authorization": "Bearer bad"}, 401, "UNAUTHORIZED"),
    ("malformed proof", "GET", "/broken", {"Authorization": "Basic %"}, 401, "UNAUTHORIZED"),
    ("not allowed", "GET", "/hidden", GOOD, 404, "NAME_UNKNOWN"),
    ("bad query", "POST", "/things/x?n=y", GOOD, 400, "UNSUPPORTED"),
    ("bad body", "POST", THING, GOOD, 400, "UNSUPPORTED"),
    ("bad path", "POST", "/things/%00?n=1", GOOD, 400, "UNSUPPORTED"),
    ("compressed", "POST", THING, GOOD | {"Content-Encoding": "gzip"}, 415, "UNSUPPORTED"),
    ("the server fails", "GET", "/broken", GOOD, 500, "UNKNOWN"),
    ("its own code", "GET", "/unknown", GOOD, 404, "MANIFEST_UNKNOWN"),
    ("taken", "GET", "/taken", GOOD, 409, "UNKNOWN"),
]


def _check(form: ErrorForm, answer: aiohttp.ClientResponse, text: str, code: str) -> None:
    assert answer.content_type == form.media_type
    assert "s3cret" not in text
    assert ("Docker-Distribution-Api-Version" in answer.headers) == (form is OCI)
    challenges = answer.headers.getall("WWW-Authenticate", [])
    expected = ['Basic realm="neuro", charset="UTF-8"'] if answer.status == 401 else []
    assert challenges == expected
    if form is OURS:
        ours = msgspec.json.decode(text)
        assert {"error", "code"} <= ours.keys() <= {"error", "code", "description"}
        assert ours["error"]
    if form is OCI:
        (error,) = msgspec.json.decode(text)["errors"]
        assert (error["code"], error.keys()) == (code, {"code", "message", "detail"})
        assert error["detail"] == ({"tag": "v1"} if code == "MANIFEST_UNKNOWN" else None)
    if form is PAGE:
        assert text.startswith("<!doctype html><html lang=en>")
        assert "<b>" not in text


@pytest.mark.parametrize("form", PREFIX, ids=PREFIX.values())
@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [trouble[1:] for trouble in TROUBLES],
    ids=[trouble[0] for trouble in TROUBLES],
)
async def test_an_error_has_the_form_of_its_route(
    caller: Caller,
    form: ErrorForm,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    data = b"no json" if method == "POST" else None

    async with caller.request(method, PREFIX[form] + path, headers=headers, data=data) as answer:
        text = await answer.text()

    assert answer.status == status, text
    _check(form, answer, text, code)


async def test_a_basic_password_is_a_token_where_the_route_takes_it(caller: Caller) -> None:
    for user in ("token", "anna"):
        headers = {"Authorization": f"Basic {base64.b64encode(f'{user}:good'.encode()).decode()}"}
        async with caller.post("/v2" + THING, json={"n": 1}, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (200, "anna")


async def test_a_token_that_pulls_an_image_is_good_for_a_registry_alone() -> None:
    api = Routes("others")

    @api.add("GET", "/tokens", inside="it is a test")
    @api.add("GET", "/config", public=True)
    async def answer(call: Call) -> str:
        """Answer whoever calls."""
        return call.user

    app = web.Application(middlewares=[render_errors])
    install(app, [*api.items, *_routes(OCI)])
    app[AUTHENTICATOR] = Engine()
    async with TestServer(app) as server, TestClient(server) as caller:
        for path in ("/tokens", "/config"):
            async with caller.get(path, headers=GOOD) as refused:
                assert (refused.status, "for the registry" in await refused.text()) == (401, True)
        async with caller.post("/v2" + THING, json={"n": 1}, headers=GOOD) as answered:
            assert (answered.status, await answered.json()) == (200, "anna")


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "is_oci"),
    [
        ("GET", "/v2", 404, "NAME_UNKNOWN", True),
        ("GET", "/v2/", 404, "NAME_UNKNOWN", True),
        ("GET", "/v2/me/train/nothing", 404, "NAME_UNKNOWN", True),
        ("PUT", "/v2/broken", 405, "UNSUPPORTED", True),
        ("GET", "/v2x/me", 404, "not_found", False),
        ("GET", "/", 404, "not_found", False),
        ("PUT", "/pages/broken", 405, "error", False),
    ],
)
async def test_a_path_without_a_route_has_the_form_of_its_prefix(
    caller: Caller, method: str, path: str, status: int, code: str, is_oci: bool
) -> None:
    async with caller.request(method, path) as answer:
        got = await answer.json()

    assert answer.status == status
    assert (got["errors"][0]["code"] if is_oci else got["code"]) == code
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("limits", [{"requests": 0}, {"in_flight": 0}])
@pytest.mark.parametrize("form", PREFIX, ids=PREFIX.values())
async def test_back_pressure_has_the_form_of_its_route(
    limits: dict[str, int], form: ErrorForm
) -> None:
    async with TestServer(_application(**limits)) as server, TestClient(server) as caller:
        path = PREFIX[form] + "/unknown"
        async with caller.get(path, headers=GOOD) as answer:
            text = await answer.text()

    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    _check(form, answer, text, "TOOMANYREQUESTS")


@pytest.mark.parametrize(
    ("languages", "russian"),
    [
        ("", False),
        ("ru", True),
        ("RU-ru", True),
        ("en, ru", False),
        ("ru;q=0.4, en;q=0.5", False),
        ("en-US;q=0.5,ru;q=0.9", True),
        ("de, ru;q=0.1", True),
        ("ru;q=nan", False),
        ("ru;q=-1, <script>", False),
        ("de," * 2000 + "ru", False),
        ("russian", False),
    ],
)
async def test_a_page_speaks_the_language_that_the_browser_asks_for(
    caller: Caller, languages: str, russian: bool
) -> None:
    headers = GOOD | {"Accept-Language": languages}

    async with caller.get("/pages/taken", headers=headers) as answer:
        text = await answer.text()

    assert ("Неверный запрос" in text, "lang=ru" in text) == (russian, russian)
    assert "&lt;b&gt;v1&lt;/b&gt; is taken." in text
    assert "<script>" not in text


def test_the_description_tells_of_proofs_and_forms() -> None:
    described = describe([route for form in PREFIX for route in _routes(form)], "1")

    validate(described)
    assert described["components"]["securitySchemes"].keys() == {"basic", "token"}
    shown = {}
    for form, prefix in PREFIX.items():
        operation = described["paths"][prefix + "/broken"]["get"]
        assert operation["security"] == [{"basic": []}, {"token": []}]
        shown[form] = operation["responses"]["default"]["content"]
    assert shown[OURS]["application/json"]["schema"]["$ref"].endswith("/Failure")
    assert shown[OCI]["application/json"]["schema"]["$ref"].endswith("/OciFailure")
    assert shown[PAGE] == {"text/html": {}}


def test_an_oci_code_is_taken_from_nothing_else() -> None:
    written = msgspec.json.decode(OCI.write(Conflict("The tag moves."), ""))

    assert written == {"errors": [{"code": "UNKNOWN", "message": "The tag moves.", "detail": None}]}


async def test_a_password_opens_nothing_where_tokens_are_asked_for(server: ServerProcess) -> None:
    basic = base64.b64encode(f"token:{server.token}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    url = server.url + "/secured-ping"

    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="neuro"'


async def test_a_page_that_cannot_be_shown_is_a_page(server: ServerProcess) -> None:
    headers = {"Authorization": "Bearer not.a.token", "Accept-Language": "ru"}
    url = server.url.removesuffix("/api/v1") + "/"

    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (401, "text/html")
        assert "Сначала войдите" in await answer.text()
