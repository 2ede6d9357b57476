"""A supervisor's side of a connection."""

from __future__ import annotations

import socket

from neuro.engines.sandbox import wire
from neuro.engines.sandbox.client import Client
from neuro.engines.sandbox.loop import Loop


def test_what_a_client_said_before_it_went_counts_though_it_cannot_be_told_any_more() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    heard: list[tuple[int, bytes]] = []
    client = Client(loop, ours, lambda _, kind, payload: heard.append((kind, payload)))
    client.on_close = lambda: setattr(loop, "running", False)
    theirs.sendall(wire.frame(wire.STOP, b"5") + wire.frame(wire.FOLLOW, b"6"))
    theirs.close()

    client.send(wire.frame(wire.STARTED))
    assert client.full  # its source must not go on for nobody
    loop.run()

    assert heard == [(wire.STOP, b"5"), (wire.FOLLOW, b"6")]
    assert not client.open


def test_a_paused_client_that_is_gone_is_let_go_at_once() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    client = Client(loop, ours, lambda *_: None)
    client.read_on(False)
    theirs.close()

    client.send(wire.frame(wire.STARTED))

    assert not client.open
