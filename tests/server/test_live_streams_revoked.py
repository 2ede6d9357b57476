"""A stream is open for as long as its token is good: whatever kind it is, whoever else reads on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.bakes import TaskStatus
from neuro.domain.permissions import Action
from neuro.domain.users import Token
from tests.server.bakes import make_bake, write
from tests.server.jobs import finished, running, submit
from tests.server_process import ServerProcess

CLOCK = "import time\nwhile True: print(time.time(), flush=True); time.sleep(0.05)"
# Says the time for ever, and what it is told to who connects to its port.
CHATTY = f"""
import socket, threading

def echo(connection):
    while data := connection.recv(100):
        connection.sendall(data)

def serve(listener):
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],)).start()

threading.Thread(target=serve, args=(socket.create_server(("127.0.0.1", 8643)),)).start()
print("up", flush=True)
{CLOCK}
"""
COMMAND = quote(f"python3 -c '{CLOCK}'", safe="")
OF_A_JOB = ["log", "log_ws", "attach", "top", "port_forward/8643", f"exec?cmd={COMMAND}"]
SOON = 20.0
TIME = re.compile(rb"\d{10}\.\d+")

Reading = AsyncGenerator[bytes]


class Reader:
    """Who reads streams with one token."""

    def __init__(self, url: str, token: Token) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {token.token}"}
        self._session = aiohttp.ClientSession(headers=headers)

    async def close(self) -> None:
        await self._session.close()

    def read(self, path: str) -> Reading:
        """What comes from a stream; ends when it is cut off."""
        is_whole = path.endswith(("events", "log")) or "events?" in path
        return self._lines(path) if is_whole else self._messages(path)

    async def _lines(self, path: str) -> Reading:
        async with self._session.get(f"{self._url}/{path}") as response:
            assert response.status == 200
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except aiohttp.ClientPayloadError:
                return
        # The end of a log is the end of its job.
        raise AssertionError("what was cut off looked whole")

    async def _messages(self, path: str) -> Reading:
        async with self._session.ws_connect(f"{self._url}/{path}") as socket:
            while True:
                if "port_forward" in path:
                    with suppress(ConnectionError):
                        await socket.send_bytes(b"%f" % time.time())
                message = await socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    yield message.data
                elif message.type is aiohttp.WSMsgType.TEXT:
                    yield message.data.encode()
                else:
                    return

    async def refusal(self) -> str:
        """What the next request is told."""
        async with self._session.get(f"{self._url}/secured-ping") as response:
            assert response.status == 401
            return str((await response.json())["error"])


@dataclass
class House:
    """A server, and readers of it who are gone after the test."""

    server: ServerProcess
    client: Client
    readers: list[Reader]

    async def reader(self, user: str, life: float | None = None) -> tuple[Reader, Token]:
        token = await self.client.users.create_token(user, expires_in=life)
        reader = Reader(self.server.url, token)
        self.readers.append(reader)
        return reader, token


@pytest.fixture
async def house(server: ServerProcess, client: Client) -> AsyncIterator[House]:
    house = House(server, client, [])
    yield house
    for reader in house.readers:
        await reader.close()


@pytest.fixture
async def chatty(client: Client) -> AsyncIterator[str]:
    job = await submit(client, f"python3 -c '{CHATTY}'")
    async for _ in client.jobs.logs(job.id):
        break
    yield job.id
    await client.jobs.kill(job.id)
    await finished(client, job)


async def open_and_said_something(reading: Reading) -> None:
    assert await asyncio.wait_for(anext(reading), SOON)


async def to_the_end(reading: Reading) -> None:
    async def read() -> None:
        async for _ in reading:
            pass

    await asyncio.wait_for(read(), SOON)


async def says(reading: Reading, holds: Callable[[bytes], bool]) -> None:
    """Return when a stream says something like this."""

    async def read() -> None:
        async for chunk in reading:
            if holds(chunk):
                return
        raise AssertionError("the stream has ended")

    await asyncio.wait_for(read(), SOON)


async def check(
    house: House, path: str, go_on: Callable[[], Awaitable[Callable[[bytes], bool]]]
) -> None:
    """Two who read the same stream: the token of one is revoked, and what ``go_on`` says comes."""
    one, token = await house.reader(house.server.user)
    other, _ = await house.reader(house.server.user)
    async with aclosing(one.read(path)) as cut_off, aclosing(other.read(path)) as left_alone:
        await open_and_said_something(cut_off)
        await open_and_said_something(left_alone)

        await house.client.users.revoke_token(house.server.user, token.id)

        await to_the_end(cut_off)
        assert "revoked" in await one.refusal()
        await says(left_alone, await go_on())


@pytest.mark.parametrize("what", OF_A_JOB, ids=lambda what: str(what).partition("?")[0])
async def test_a_stream_of_a_job_ends_with_its_token(house: House, chatty: str, what: str) -> None:
    async def go_on() -> Callable[[bytes], bool]:
        now = time.time()
        return lambda chunk: any(float(moment) > now for moment in TIME.findall(chunk))

    await check(house, f"monitoring/jobs/{chatty}/{what}", go_on)


async def test_a_stream_of_job_events_ends_with_its_token(house: House) -> None:
    tag = f"bake_id:{uuid4()}"

    async def go_on() -> Callable[[bytes], bool]:
        job = await submit(house.client, "true", tags=[tag])
        return lambda chunk: job.id.encode() in chunk

    await check(house, f"jobs/events?tag={tag}", go_on)


async def test_a_stream_of_a_bakes_events_ends_with_its_token(house: House) -> None:
    project = await house.client.flows.create_project("revoked")
    bake, attempt = await make_bake(house.client, project.id)

    async def go_on() -> Callable[[bytes], bool]:
        await write(house.client, attempt, TaskStatus.RUNNING)
        return lambda chunk: b'"running"' in chunk

    await check(house, f"flow/bakes/{bake.id}/events", go_on)
    await house.client.flows.delete_project(project.id)


@pytest.mark.parametrize("how", ["revoked", "role", "expired"])
async def test_streams_of_what_was_shared_end_with_the_share(
    house: House, chatty: str, how: str
) -> None:
    client, owner, friend = house.client, house.server.user, f"friend-{how}"
    await client.users.add(friend)
    role, uri = f"{owner}/roles/{how}", f"job://default/{owner}/{chatty}"
    if how == "role":
        await client.permissions.add_role(role)
        await client.permissions.share(uri, role, Action.WRITE)
        await client.permissions.share(f"role://{role}", friend, Action.READ)
    else:
        life = 10.0 if how == "expired" else None
        await client.permissions.share(uri, friend, Action.WRITE, expires_in=life)
    reader, _ = await house.reader(friend)
    shared = [reader.read(f"monitoring/jobs/{chatty}/{what}") for what in OF_A_JOB]
    shared.append(reader.read("jobs/events"))
    async with AsyncExitStack() as stack:
        for reading in shared:
            await stack.enter_async_context(aclosing(reading))
            await open_and_said_something(reading)

        if how == "role":
            await client.permissions.remove_role(role)
        elif how == "revoked":
            await client.permissions.revoke(uri, friend)

        for reading in shared:
            await to_the_end(reading)
    # Their token is as good as before.
    async with aclosing(reader.read("jobs/events")) as reading:
        await open_and_said_something(reading)


async def test_what_is_still_allowed_goes_on_when_something_else_is_taken_back(
    house: House, chatty: str
) -> None:
    client, owner = house.client, house.server.user
    await client.users.add("dora")
    uri, other = f"job://default/{owner}/{chatty}", f"storage://default/{owner}/x"
    for shared in (uri, other):
        await client.permissions.share(shared, "dora", Action.READ)
    reader, _ = await house.reader("dora")
    async with aclosing(reader.read(f"monitoring/jobs/{chatty}/log_ws")) as reading:
        await open_and_said_something(reading)
        await client.permissions.revoke(other, "dora")
        now = time.time()
        await says(
            reading, lambda chunk: any(float(moment) > now for moment in TIME.findall(chunk))
        )
        await client.permissions.revoke(uri, "dora")
        await to_the_end(reading)


async def test_an_upload_ends_with_its_token(house: House) -> None:
    _, token = await house.reader(house.server.user)
    url = f"{house.server.url}/storage/{house.server.user}/{uuid4()}?op=CREATE"
    under_way = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            # More than the connection holds: the server has read some when this goes on.
            for _ in range(64):
                yield b"x" * (1 << 20)
            under_way.set()
            await asyncio.sleep(0.05)

    async def upload() -> None:
        headers = {"Authorization": f"Bearer {token.token}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            await session.put(url, data=endless())

    uploading = asyncio.create_task(upload())
    await asyncio.wait_for(under_way.wait(), SOON)
    await house.client.users.revoke_token(house.server.user, token.id)

    with pytest.raises(aiohttp.ClientError):
        await asyncio.wait_for(uploading, SOON)


async def test_all_streams_of_a_user_end_when_they_are_removed(house: House) -> None:
    await house.client.users.add("carol")
    (one, _), (two, _) = await house.reader("carol"), await house.reader("carol")
    admin, _ = await house.reader(house.server.user)
    async with (
        aclosing(one.read("jobs/events")) as first,
        aclosing(two.read("jobs/events")) as second,
        aclosing(admin.read("jobs/events")) as left_alone,
    ):
        for reading in (first, second, left_alone):
            await open_and_said_something(reading)

        await house.client.users.remove("carol")

        await to_the_end(first)
        await to_the_end(second)
        job = await submit(house.client, "true")
        await says(left_alone, lambda chunk: job.id.encode() in chunk)
    assert "revoked" in await one.refusal()


@pytest.mark.parametrize("what", ["log", "log_ws"])
async def test_a_stream_ends_with_the_lifetime_of_its_token(
    house: House, chatty: str, what: str
) -> None:
    reader, token = await house.reader(house.server.user, life=5.0)
    async with aclosing(reader.read(f"monitoring/jobs/{chatty}/{what}")) as reading:
        await open_and_said_something(reading)
        await to_the_end(reading)

    assert datetime.now(UTC) >= token.expires_at
    assert "expired" in await reader.refusal()


async def test_who_revokes_their_own_token_is_answered(house: House) -> None:
    reader, token = await house.reader(house.server.user)
    async with Client.connect(house.server.url, token.token or "") as own:
        job = await running(own, "sleep 1000")
        reading = reader.read(f"monitoring/jobs/{job.id}/log_ws")
        async with aclosing(reading):
            await open_and_said_something(reading)
            await own.users.revoke_token(house.server.user, token.id)
            await to_the_end(reading)
    await house.client.jobs.kill(job.id)
    await finished(house.client, job)
