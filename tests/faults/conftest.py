from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.faults.project import Project
from tests.server_process import SETTINGS, running_server

Clock = Callable[[timedelta], None]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project on a server that ends jobs without much ado."""
    settings = SETTINGS.replace("stop_grace_seconds = 2", "stop_grace_seconds = 0.2")
    with running_server(tmp_path / "data", settings=settings) as server:
        yield Project(server, tmp_path)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process preloads whose clock is to be set."""
    made = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", made, source], check=True)
    return made


@pytest.fixture
def clock(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """Sets the clock of all processes that are started from now on, and of what they start."""
    path = tmp_path / "clock"
    path.write_bytes(bytes(8))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("TEST_CLOCK", str(path))
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 8) as offset:

        def set_clock(by: timedelta) -> None:
            offset[:] = struct.pack("=q", by // timedelta(microseconds=1) * 1000)

        yield set_clock
