"""A supervisor's side of a connection."""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import threading

import pytest

from neuro.engines.sandbox import wire
from neuro.engines.sandbox.client import Client
from neuro.engines.sandbox.execution import Execution
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


def test_a_sender_that_reads_nothing_is_told_the_last_of_what_was_taken() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
    client = Client(loop, ours, lambda *_: None)
    process = subprocess.Popen(["sleep", "600"])
    given: list[int] = []

    def spawn(streams: tuple[int, int, int], word: int) -> int:
        given.append(os.dup(streams[0]))
        return process.pid

    Execution(loop, client, spawn, terminal=None, on_over=lambda _: None)
    times = 20_000
    for _ in range(times):  # each byte that is taken is told
        client.on_frame(client, wire.INPUT, b"x")
        os.read(given[0], 1)

    client.on_close = lambda: setattr(loop, "running", False)
    client.finish()
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.extend(iter(lambda: theirs.recv(1 << 16), b"")))
    reader.start()
    loop.run()
    reader.join()
    process.kill()
    process.wait()

    frames = wire.Frames().feed(b"".join(said))
    told = [wire.OFFSET.unpack(payload)[0] for kind, payload in frames if kind == wire.INPUT_TAKEN]
    assert told[-1] == times
    assert len(told) < times // 2


def test_an_exec_that_finds_no_descriptors_takes_none() -> None:
    loop = Loop()
    ours, _theirs = socket.socketpair()
    client = Client(loop, ours, lambda *_: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    was_open = set(os.listdir("/proc/self/fd"))
    free = os.dup(0)
    os.close(free)

    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, before[1]))
    try:
        with pytest.raises(OSError) as told:
            Execution(loop, client, lambda *_: 0, terminal=None, on_over=lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert told.value.errno == errno.EMFILE
    assert set(os.listdir("/proc/self/fd")) == was_open
