"""Where the server listens, so that its jobs find it wherever it does."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from neuro.domain.errors import Conflict
from neuro.server.http.connections import Patience
from neuro.server.listening import bind, bind_for_jobs, within_descriptors


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


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_the_machine_lacks_is_not_taken_for_a_busy_port(host: str) -> None:
    with pytest.raises(Conflict, match="Give --host an address that this machine has"):
        bind(host, 0)


def test_a_busy_port_is_told_as_one() -> None:
    with bind("127.0.0.1", 0) as one:
        one.listen()
        with pytest.raises(Conflict, match="stop what uses this one"):
            bind("127.0.0.1", one.getsockname()[1])


def test_streams_that_are_passed_on_leave_descriptors_for_the_other_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda of: (3000, 3000))

    assert within_descriptors(Patience(), 2).connections == 1500
    assert within_descriptors(Patience(), 3).connections == 1000
