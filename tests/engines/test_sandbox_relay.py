"""A run's way to a socket of this machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.relay import Relay

_LARGE = bytes(range(256)) * (16 << 10)  # more than all that lies on the way takes


@contextmanager
def _relayed(folder: Path, target: str) -> Iterator[str]:
    """Where a relay to ``target`` listens."""
    loop, place = Loop(), str(folder / "place")
    relay = Relay(loop, place, target, Block(-1))
    ended, end = os.pipe()

    def stop(_: int) -> None:
        relay.close()
        loop.running = False

    loop.watch(ended, READ, stop)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield place
    finally:
        os.close(end)
        thread.join()
        os.close(ended)


@contextmanager
def _listening(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "target"))
        listener.listen()
        listener.settimeout(30)
        yield listener


def _connected(place: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(place)
    return connection


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := connection.recv(1 << 16)):
        found += piece
    return found


def test_what_one_says_the_other_is_told(tmp_path: Path) -> None:
    with (
        _listening(tmp_path) as listener,
        _relayed(tmp_path, str(tmp_path / "target")) as place,
        _connected(place) as ours,
    ):
        theirs, _ = listener.accept()
        theirs.settimeout(30)
        sending = threading.Thread(target=ours.sendall, args=(_LARGE,))
        sending.start()
        assert _read(theirs, len(_LARGE)) == _LARGE
        sending.join()

        last = threading.Thread(target=lambda: (theirs.sendall(_LARGE), theirs.close()))
        last.start()
        # All of it, also what was on its way when the other side had gone.
        assert _read(ours, len(_LARGE) + 1) == _LARGE
        last.join()


def test_who_leaves_is_missed_on_the_other_side(tmp_path: Path) -> None:
    with _listening(tmp_path) as listener, _relayed(tmp_path, str(tmp_path / "target")) as place:
        ours = _connected(place)
        theirs, _ = listener.accept()
        theirs.settimeout(30)
        ours.close()
        assert theirs.recv(1) == b""
        theirs.close()


def test_where_nobody_listens_a_connection_ends(tmp_path: Path) -> None:
    with _relayed(tmp_path, str(tmp_path / "target")) as place, _connected(place) as ours:
        assert ours.recv(1) == b""
