"""Whether a registry can be reached is found out once for all, and nobody waits for long."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from neuro.engines.sandbox.reachability import Reachability


class Network:
    """What a machine's resolver answers, as soon as it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()
        self.error: OSError | None = socket.gaierror(socket.EAI_NONAME, "unknown name")

    def resolve(self, *_: object, **__: object) -> list[object]:
        self.asked += 1
        assert self.answers.wait(60)
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    made = Network()
    monkeypatch.setattr(socket, "getaddrinfo", made.resolve)
    monkeypatch.setattr("neuro.engines.sandbox.reachability.getproxies", dict)
    return made


def test_what_was_found_out_is_good_for_a_minute(network: Network) -> None:
    reachability = Reachability()

    first = reachability.why_away("registry.example")
    second = reachability.why_away("registry.example")

    assert first == second == "unknown name"
    assert network.asked == 1


def test_a_network_that_says_nothing_is_waited_for_once_and_shortly(network: Network) -> None:
    reachability = Reachability(patience=0.05)
    network.answers.clear()

    first = reachability.why_away("registry.example")
    network.answers.set()

    assert first is not None
    assert "says nothing" in first
    assert network.asked == 1


def test_nobody_waits_for_a_second_look(network: Network) -> None:
    reachability = Reachability(patience=60, fresh=0)
    reachability.why_away("registry.example")
    network.answers.clear()  # from now on it hangs

    assert reachability.why_away("registry.example") == "unknown name"
    network.answers.set()


def test_a_host_that_answers_can_be_reached(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.error = None
    reachability = Reachability()
    monkeypatch.setattr(socket, "create_connection", lambda *_: socket.socket())

    assert reachability.why_away("registry.example") is None

    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert reachability.why_away("registry.example") is None  # it is still fresh
    reachability.forget("registry.example")
    assert reachability.why_away("registry.example") == "Network is unreachable"
