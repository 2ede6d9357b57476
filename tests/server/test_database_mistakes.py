"""What is wrong with the database at a start is one sentence, and no traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput
from neuro.server.database.engine import Database
from tests.server_process import ServerProcess


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


CASES = {
    "mysql://host/name": "begins with 'mysql': it must be a URL such as postgresql://",
    "neuro": "begins with 'neuro'",
    "postgresql://user:p@ss@host:port/name": "cannot be read",
    "postgresql://127.0.0.1:{port}/name": r"does not answer: .*refused\. Is the server running",
    "sqlite:////nowhere/at/all.db": "database /nowhere/at/all.db does not answer: unable to open",
}


@pytest.mark.parametrize("url", CASES)
def test_it_is_one_sentence(tmp_path: Path, url: str) -> None:
    server = ServerProcess(tmp_path / "data", database=url.format(port=free_port()))

    with pytest.raises(RuntimeError, match=CASES[url]) as told:
        server.start()

    assert "\n" not in str(told.value)
    assert "Traceback" not in server.log()


def test_a_missing_driver_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(InvalidInput, match=r"pip install '/path/to/clone\[server,postgres\]'"):
        Database("postgresql://user@host/name")


@pytest.mark.root
def test_a_start_that_the_database_refuses_leaves_nothing_of_the_engine(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data")
    server.start()
    server.stop()
    (server.data_dir / "installation").write_text("0" * 32 + "\n")

    with pytest.raises(RuntimeError, match="belongs to another database"):
        server.start()

    name = json.loads((server.data_dir / "engines/sandbox/installation").read_text())["id"]
    assert not list(Path("/sys/fs/cgroup").glob(f"**/neuro-{name}"))
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert name not in tables.stdout
