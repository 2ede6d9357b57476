"""A run's way to a socket of this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuro.engines.sandbox.nesting import LAST_WORD
from tests.engines.relayed import relayed

_LARGE = bytes(range(256)) * (16 << 10)  # more than all that lies on the way takes


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
        relayed(tmp_path, str(tmp_path / "target")) as place,
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
    with _listening(tmp_path) as listener, relayed(tmp_path, str(tmp_path / "target")) as place:
        ours = _connected(place)
        theirs, _ = listener.accept()
        theirs.settimeout(30)
        ours.close()
        assert theirs.recv(1) == b""
        theirs.close()


def test_after_the_last_word_nobody_gets_there(tmp_path: Path) -> None:
    with _listening(tmp_path) as listener, relayed(tmp_path, str(tmp_path / "target")) as place:
        before = _connected(place)
        theirs, _ = listener.accept()
        theirs.settimeout(30)
        with _connected(place) as last:
            last.sendall(LAST_WORD[:3])
            last.sendall(LAST_WORD[3:])
            assert last.recv(1) == b""

        assert before.recv(1) == theirs.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            _connected(place)
        before.close()
        theirs.close()


def test_what_only_begins_as_the_last_word_is_passed_on(tmp_path: Path) -> None:
    with (
        _listening(tmp_path) as listener,
        relayed(tmp_path, str(tmp_path / "target")) as place,
        _connected(place) as ours,
    ):
        theirs, _ = listener.accept()
        theirs.settimeout(30)
        ours.sendall(LAST_WORD[:3])
        ours.sendall(b"body" + LAST_WORD)

        assert _read(theirs, 7 + len(LAST_WORD)) == LAST_WORD[:3] + b"body" + LAST_WORD
        theirs.close()


def test_where_nobody_listens_a_connection_ends(tmp_path: Path) -> None:
    with relayed(tmp_path, str(tmp_path / "target")) as place, _connected(place) as ours:
        ours.sendall(b"G")
        assert ours.recv(1) == b""


def test_the_last_word_is_heard_while_the_daemon_is_away(tmp_path: Path) -> None:
    with relayed(tmp_path, str(tmp_path / "target")) as place:
        with _connected(place) as last:
            last.sendall(LAST_WORD)
            assert last.recv(1) == b""

        with pytest.raises(ConnectionRefusedError):
            _connected(place)
