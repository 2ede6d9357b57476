"""How the SDK calls: who said no, when to come back, and which event loop it runs in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest

from neuro.client import Client, JobRequest, iterate
from neuro.client.accounts import api_url
from neuro.client.asyncio_http import AsyncioTransport
from neuro.client.blocking import run
from neuro.domain.errors import (
    InvalidInput,
    NotFound,
    PlatformError,
    TooManyRequests,
    Unavailable,
)
from neuro.flow.batch.patience import Pauses, is_passing
from tests.sdk.conftest import ToldServer

T = TypeVar("T")

A_USER = b'{"name": "anna", "is_admin": false, "created_at": "2026-11-02T00:00:00Z"}'
BUSY = b'{"error": "The server has too much to do.", "code": "too_many_requests"}'


class Slept:
    """A transport's sleep that only notes how long it would have been."""

    def __init__(self, client: Client) -> None:
        self.pauses: list[float] = []
        client.transport.sleep = self  # type: ignore[method-assign, assignment]

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture(params=["blocking", "connect", "asyncio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def client_of(kind: str, url: str) -> Client:
    """A client of either kind."""
    if kind == "asyncio":
        return Client(AsyncioTransport(api_url(url), None))
    client: Client = getattr(Client, kind)(url, None)
    return client


def call(kind: str, client: Client, made: Coroutine[Any, Any, T]) -> T:
    """The result of a call of either kind of client."""

    async def and_close() -> T:
        async with client:
            return await made

    return run(made) if kind == "blocking" else asyncio.run(and_close())


def test_a_pause_that_a_busy_server_asks_for_is_made(told: ToldServer, kind: str) -> None:
    told.tell(429, BUSY, retry_after="1")
    told.tell(429, BUSY, retry_after="2")
    told.tell(200, A_USER)
    client = client_of(kind, told.url)
    slept = Slept(client)

    user = call(kind, client, client.users.get("anna"))

    assert (user.name, slept.pauses) == ("anna", [1.0, 2.0])
    assert told.asked == ["GET /api/v1/users/anna"] * 3


def test_a_submission_that_was_not_begun_is_repeated(told: ToldServer, kind: str) -> None:
    told.tell(429, BUSY, retry_after="1")
    told.tell(201, A_USER)
    client = client_of(kind, told.url)
    slept = Slept(client)

    assert call(kind, client, client.users.add("anna")).name == "anna"
    assert slept.pauses == [1.0]


def test_the_pauses_of_one_call_have_an_end(told: ToldServer, kind: str) -> None:
    told.tell(429, BUSY, retry_after="2")
    client = client_of(kind, told.url)
    slept = Slept(client)

    with pytest.raises(TooManyRequests) as caught:
        call(kind, client, client.users.get("anna"))

    assert (slept.pauses, caught.value.retry_after) == ([2.0, 2.0], 2.0)


def test_a_long_pause_is_the_callers_to_make(told: ToldServer, kind: str) -> None:
    told.tell(429, BUSY, retry_after="10")
    client = client_of(kind, told.url)
    slept = Slept(client)

    with pytest.raises(TooManyRequests, match="too much to do") as caught:
        call(kind, client, client.jobs.submit(JobRequest(image="ubuntu")))

    assert (slept.pauses, caught.value.retry_after) == ([], 10.0)


@pytest.mark.parametrize(("method", "asked"), [("get", 2), ("add", 1)])
def test_only_reading_is_repeated_where_a_server_is_away(
    told: ToldServer, method: str, asked: int
) -> None:
    told.tell(503, b'{"error": "going down", "code": "unavailable"}', retry_after="1")
    told.tell(200, A_USER)
    client = Client.blocking(told.url, None)
    Slept(client)

    if method == "get":
        assert run(client.users.get("anna")).name == "anna"
    else:
        with pytest.raises(Unavailable):
            run(client.users.add("anna"))
    assert len(told.asked) == asked


def test_the_time_to_come_back_may_be_a_date(told: ToldServer) -> None:
    told.tell(429, BUSY, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=60)))
    client = Client.blocking(told.url, None)

    with pytest.raises(TooManyRequests) as caught:
        run(client.users.get("anna"))

    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60


@pytest.mark.parametrize("header", ["soon", "", "-5"])
def test_a_retry_after_that_says_nothing_is_none(told: ToldServer, header: str) -> None:
    told.tell(429, BUSY, retry_after=header)
    told.tell(200, A_USER)
    client = Client.blocking(told.url, None)
    slept = Slept(client)

    if header == "-5":
        assert run(client.users.get("anna")).name == "anna"
        assert slept.pauses == [0.0]
    else:
        with pytest.raises(TooManyRequests) as caught:
            run(client.users.get("anna"))
        assert caught.value.retry_after is None


async def test_an_executor_waits_for_as_long_as_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("neuro.flow.batch.patience.asyncio.sleep", note)
    pauses = Pauses()
    await pauses.wait(TooManyRequests("x", retry_after=20))
    await pauses.wait(TooManyRequests("x", retry_after=None))

    assert 16 <= slept[0] <= 24
    assert slept[1] < 1


def test_an_error_says_whether_the_server_said_it(told: ToldServer, kind: str) -> None:
    told.tell(400, b'{"error": "no such preset", "code": "invalid"}')
    client = client_of(kind, told.url)

    with pytest.raises(InvalidInput) as answered:
        call(kind, client, client.users.get("anna"))
    with pytest.raises(InvalidInput) as local:
        run(Client.blocking(told.url, None).jobs.find("no name"))

    assert (answered.value.from_server, local.value.from_server) == (True, False)


def test_an_error_in_the_middle_of_a_list_says_it_too(told: ToldServer) -> None:
    told.tell(200, b'{"error": "gone", "code": "not_found"}\n')
    client = Client.blocking(told.url, None)

    with pytest.raises(NotFound, match="gone") as caught:
        list(iterate(client.jobs.list()))

    assert caught.value.from_server


def test_a_status_that_nobody_knows_is_told_as_it_is(told: ToldServer) -> None:
    told.tell(418, b"a teapot")
    client = Client.blocking(told.url, None)

    with pytest.raises(PlatformError, match="a teapot") as caught:
        run(client.users.get("anna"))

    assert caught.value.status == 418
    assert not is_passing(caught.value)


def test_a_client_may_be_made_before_there_is_a_loop_and_outlive_it(told: ToldServer) -> None:
    told.tell(200, A_USER)
    client = Client.connect(told.url, None)

    names = [asyncio.run(client.users.get("anna")).name for _ in range(2)]
    asyncio.run(client.close())

    assert names == ["anna", "anna"]


def test_an_iteration_may_be_left_in_the_middle(told: ToldServer) -> None:
    told.tell(200, b'{"name": "0"}\n{"name": "1"}\n{"name": "2"}\n')
    client = Client.blocking(told.url, None)
    from neuro.client.messages import each
    from neuro.domain.users import UserRequest

    users = iterate(each(client.transport, "/users", (), UserRequest))
    first = next(users)
    users.close()  # type: ignore[attr-defined]

    assert first.name == "0"
    assert [user.name for user in iterate(each(client.transport, "/users", (), UserRequest))] == [
        "0", "1", "2",
    ]  # fmt: skip
