"""Where the server listens, so that its jobs find it wherever it does."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from neuro.server.listening import bind, bind_for_jobs


@pytest.mark.parametrize(
    ("host", "more"),
    [
        ("127.0.0.1", ["127.0.0.3"]),
        # Jobs that have no network of their own look for it on loopback all the same.
        ("127.0.0.2", ["127.0.0.1", "127.0.0.3"]),
        ("0.0.0.0", []),
    ],
)
def test_jobs_find_the_server_at_every_address_that_they_know(host: str, more: list[str]) -> None:
    addresses = ["127.0.0.3", "127.0.0.1", "127.0.0.3"]
    with ExitStack() as stack:
        listener = stack.enter_context(bind(host, 0))
        port = listener.getsockname()[1]
        others = [stack.enter_context(each) for each in bind_for_jobs(host, port, addresses)]
        for each in (listener, *others):
            each.listen()

        assert [each.getsockname() for each in others] == [(each, port) for each in more]
        for address in addresses:
            stack.enter_context(socket.create_connection((address, port), timeout=5))
