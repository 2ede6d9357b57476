"""The transport of executors: each form of an answer, and each way in which one fails to come."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from neuro.client.asyncio_http import AsyncioTransport
from neuro.client.transport import Request, ServerUnreachable
from neuro.domain.errors import TooLarge

GET = Request(method="GET", path="/thing", params=[("of", "ä b")])
OK = b"HTTP/1.1 200 OK\r\n"


class RawServer:
    """Answers each request of a connection with the next bytes; after the last, it hangs up."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.connections = list(connections)
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self.connections.pop(0):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            self.asked.append(head + await reader.readexactly(int(length or 0)))
            writer.write(answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def asking(
    raw: RawServer, *, timeout: float = 60.0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[AsyncioTransport]:
    """A transport to a raw server."""
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    scheme = "https" if tls else "http"
    transport = AsyncioTransport(f"{scheme}://{host}:{port}", "secret", timeout=timeout)
    async with server:
        yield transport
        await transport.close()


async def body(transport: AsyncioTransport, request: Request = GET) -> bytes:
    async with transport.send(request) as response:
        return await response.read()


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (b"content-length:5\r\n\r\nhello", b"hello"),
        (
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\nA;x=1\r\nllo, world\r\n0\r\n\r\n",
            b"hello, world",
        ),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nDigest: y\r\n\r\n", b"x"),
        (b"\r\nuntil the end", b"until the end"),
        (b"Content-Length: 0\r\n\r\n", b""),
    ],
    ids=["length", "lower case", "chunks", "trailer", "until the end", "nothing"],
)  # fmt: skip
async def test_a_body_ends_where_its_head_says(answer: bytes, read: bytes) -> None:
    async with asking(RawServer([OK + answer])) as transport:
        assert await body(transport) == read


async def test_a_request_is_one_that_servers_understand() -> None:
    raw = RawServer([OK + b"Content-Length: 0\r\n\r\n"])
    request = Request(method="PUT", path="/thing", headers={"X-Key": "ä"}, body=b"whole")

    async with asking(raw) as transport:
        await body(transport, request)
        place = transport.url.removeprefix("http://")

    head, _, sent = raw.asked[0].partition(b"\r\n\r\n")
    assert head.decode().split("\r\n") == [
        "PUT /thing HTTP/1.1",
        f"Host: {place}",
        "User-Agent: neuro",
        "Accept: */*",
        "Authorization: Bearer secret",
        "X-Key: ä",
        "Content-Length: 5",
    ]
    assert sent == b"whole"


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("GET", OK + b"Content-Length: 1\r\n\r\nx"),
        ("GET", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
        ("HEAD", OK + b"Content-Length: 100\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
    ids=["length", "chunks", "after another head", "HEAD", "204"],
)
async def test_the_next_request_takes_the_same_connection(method: str, first: bytes) -> None:
    raw = RawServer([first, OK + b"Content-Length: 4\r\n\r\nnext"])

    async with asking(raw) as transport:
        await body(transport, Request(method=method, path="/thing"))
        assert await body(transport) == b"next"


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx",
        # What nobody has asked for, as proxies send before they hang up.
        OK + b"Content-Length: 1\r\n\r\nxHTTP/1.1 408 Request Timeout\r\n\r\n",
    ],
    ids=["HTTP/1.0", "Connection: close", "unasked"],
)
async def test_a_connection_that_is_over_is_not_taken_again(first: bytes) -> None:
    raw = RawServer([first, b"wrong"], [OK + b"Content-Length: 4\r\n\r\nnext"])

    async with asking(raw) as transport:
        assert await body(transport) == b"x"
        assert await body(transport) == b"next"


async def test_an_answer_left_unread_does_not_become_the_next_one() -> None:
    raw = RawServer(
        [OK + b"Content-Length: 9\r\n\r\nfirst", b"wrong"],
        [OK + b"Content-Length: 4\r\n\r\nnext"],
    )

    async with asking(raw) as transport:
        async with transport.send(GET) as response:
            assert [chunk async for chunk in _first(response.chunks())] == [b"first"]
        assert await body(transport) == b"next"


async def _first(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await anext(chunks)


async def test_a_server_that_closed_an_idle_connection_is_asked_on_another() -> None:
    raw = RawServer(
        [OK + b"Content-Length: 0\r\n\r\n", b""], [OK + b"Content-Length: 4\r\n\r\nnext"]
    )

    async with asking(raw) as transport:
        await body(transport)
        # Its second request is read, and the connection closed in place of an answer.
        assert await body(transport) == b"next"

    assert len(raw.asked) == 3


async def test_lines_come_as_they_are_written() -> None:
    pieces = [b'{"a": 1}\n{"b"', b": 2}\r\n\n", b"last"]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    raw = RawServer([OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"])

    async with asking(raw) as transport, transport.send(GET) as response:
        assert [line async for line in response.lines()] == [b'{"a": 1}', b'{"b": 2}', b"", b"last"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the connection broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-", "the connection broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the connection broke off"),
        (OK + b"no header\r\n\r\n", "the connection broke off"),
        (OK + b"Content-Length: many\r\n\r\n", "the connection broke off"),
        (OK + b"Content-Length: 9\r\n\r\nfirst", "was lost: the connection broke off"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nfirst", "was lost"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nmany\r\n", "was lost"),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, said: str) -> None:
    async with asking(RawServer([answer])) as transport:
        with pytest.raises(ServerUnreachable, match=said):
            await body(transport)


@pytest.mark.parametrize("begun", [b"", OK + b"Content-Length: 5\r\n\r\nhe"], ids=["head", "body"])
async def test_silence_has_an_end(begun: bytes) -> None:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        await reader.read()
        writer.close()

    raw = RawServer()
    raw.serve = stay_silent  # type: ignore[method-assign]
    async with asking(raw, timeout=0.05) as transport:
        with pytest.raises(ServerUnreachable, match="no answer came in time"):
            await body(transport)


async def test_a_refusal_counts_though_the_request_is_not_yet_sent() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await hang_up.wait()
        writer.close()

    raw, hang_up = RawServer(), asyncio.Event()
    raw.serve = refuse  # type: ignore[method-assign]
    async with asking(raw) as transport:
        with pytest.raises(TooLarge):
            await body(transport, Request(method="PUT", path="/thing", body=bytes(64 << 20)))
        hang_up.set()


async def test_nobody_listens(unused_tcp_port: int) -> None:
    transport = AsyncioTransport(f"http://127.0.0.1:{unused_tcp_port}", None)

    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:.*: Connection refused"):
        await body(transport)


async def test_a_call_that_is_cancelled_gives_its_connection_up() -> None:
    raw = RawServer([OK + b"Content-Length: 9\r\n\r\nfirst", b"wrong"], [OK + b"\r\nnext"])

    async with asking(raw) as transport:
        call = asyncio.ensure_future(body(transport))
        while not raw.asked:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await body(transport) == b"next"


async def test_a_server_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*_certificate(tmp_path))
    answers = [OK + b"Content-Length: 5\r\n\r\nhello", OK + b"Content-Length: 4\r\n\r\nnext"]

    async with asking(RawServer(answers), tls=context) as transport:
        with pytest.raises(ServerUnreachable, match="TLS failed"):
            await body(transport)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with asking(RawServer(answers), tls=context) as transport:
        assert await body(transport) == b"hello"
        assert await body(transport) == b"next"


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL
    )
    return certificate, key


async def test_a_header_cannot_add_another() -> None:
    transport = AsyncioTransport("http://127.0.0.1:1", None)
    request = Request(method="GET", path="/thing", headers={"X-Key": "a\r\nHost: other"})

    with pytest.raises(ValueError, match="line break"):
        await body(transport, request)


def test_an_executor_does_not_load_aiohttp() -> None:
    program = (
        "import sys, neuro.flow.cli.execute, neuro.flow.batch.executor, neuro.client.asyncio_http;"
        "import neuro.client.bakes, neuro.client.jobs; print('aiohttp' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("request_", "repeated"),
    [
        (Request(method="PUT", path="/thing", body=b"whole"), True),
        (Request(method="DELETE", path="/thing"), True),
        (Request(method="POST", path="/thing", headers={"Idempotency-Key": "k"}), True),
        (Request(method="POST", path="/thing", body=b"whole"), False),
        (Request(method="PATCH", path="/thing", body=b"whole"), False),
    ],
)
async def test_what_may_have_been_read_is_sent_again_only_where_that_does_no_more(
    request_: Request, repeated: bool
) -> None:
    raw = RawServer(
        [OK + b"Content-Length: 0\r\n\r\n", b""], [OK + b"Content-Length: 4\r\n\r\nnext"]
    )

    async with asking(raw) as transport:
        await body(transport)
        # The server reads the second one, and closes the connection in place of an answer.
        if repeated:
            assert await body(transport, request_) == b"next"
        else:
            with pytest.raises(ServerUnreachable):
                await body(transport, request_)

    assert len(raw.asked) == (3 if repeated else 2)
