"""The command line's transport, where a server closes a connection that was kept."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from neuro.client.blocking import BlockingTransport, run
from neuro.client.transport import Request, ServerUnreachable

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Closing:
    """Answers the first request of a connection, and reads the second before it hangs up.

    With ``at_once`` it hangs up behind the first answer. Any later connection answers all.
    """

    def __init__(self, *, at_once: bool) -> None:
        self.asked: list[bytes] = []
        self.has_closed = Event()
        self._at_once = at_once
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        first, _ = self._listener.accept()
        with first:
            self._answer(first)
            if not self._at_once:
                self.asked.append(first.recv(1 << 16))
        self.has_closed.set()
        try:
            second, _ = self._listener.accept()
        except OSError:
            return
        with second:
            self._answer(second)

    def _answer(self, connection: socket.socket) -> None:
        self.asked.append(connection.recv(1 << 16))
        connection.sendall(ANSWER)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(params=[False, True], ids=["behind the next request", "at once"])
def server(request: pytest.FixtureRequest) -> Iterator[Closing]:
    server = Closing(at_once=request.param)
    yield server
    server.close()


async def _sent(transport: BlockingTransport, request: Request) -> bytes:
    async with transport.send(request) as response:
        return await response.read()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_what_does_no_more_twice_is_sent_again(server: Closing, method: str) -> None:
    transport = BlockingTransport(server.url, None)
    at_once = server._at_once
    assert run(_sent(transport, Request(method="GET", path="/first"))) == b"ok"
    if at_once:
        assert server.has_closed.wait(30)

    call = _sent(transport, Request(method=method, path="/second", body=b"x"))
    if method == "GET" or at_once:
        # A connection that is known to be closed is not used: nothing was sent on it.
        assert run(call) == b"ok"
    else:
        with pytest.raises(ServerUnreachable):
            run(call)

    sent = [one.split()[1] for one in server.asked]
    twice = method == "GET" and not at_once
    assert sent == [b"/first", *[b"/second"] * (2 if twice else 1)]
    run(transport.close())
