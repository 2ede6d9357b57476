"""The command line in a process of its own: Ctrl-C in the middle, and a terminal's progress."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.storage.server import StorageServer

SIZE = 256 << 20


@pytest.fixture
def environment(server: StorageServer, tmp_path: Path) -> dict[str, str]:
    """Where alice is logged in."""
    environment = {**os.environ, "NEUROMATION_CONFIG": str(tmp_path / "config"), "TERM": "xterm"}
    subprocess.run(
        command("config", "login-with-token", server.tokens.jwt("alice"), server.url),
        env=environment,
        check=True,
        capture_output=True,
    )
    return environment


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "neuro.cli", *arguments]


def interrupt(
    arguments: list[str], environment: dict[str, str], when: Callable[[], bool]
) -> tuple[int, str]:
    """Start a command, send Ctrl-C when a condition holds; its exit code and what it said."""
    process = subprocess.Popen(
        command(*arguments), env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not when():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(number.to_bytes(2, "big") * (1 << 19))


def is_begun(folder: Path, pattern: str) -> bool:
    with suppress(FileNotFoundError):
        return any(0 < path.stat().st_size < SIZE for path in folder.glob(pattern))
    return False


def test_an_upload_that_was_interrupted_is_not_there_and_can_be_continued(
    server: StorageServer, environment: dict[str, str], tmp_path: Path
) -> None:
    home = server.home("alice")
    make_large(tmp_path / "large")
    upload = ["cp", "--continue", str(tmp_path / "large"), "storage:large"]

    code, said = interrupt(upload, environment, lambda: is_begun(home, ".neuro-uploads/*"))

    assert (code, "Traceback" in said) == (130, False)
    assert "the same command with --continue goes on where it was." in said
    assert not (home / "large").exists()
    subprocess.run(command(*upload), env=environment, check=True)
    assert (home / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert list((home / ".neuro-uploads").iterdir()) == []


def test_a_download_that_was_interrupted_is_not_there_and_can_be_continued(
    server: StorageServer, environment: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    make_large(server.home("alice") / "large")
    download = ["cp", "--continue", "storage:large", f"{target}/"]

    code, said = interrupt(
        download,
        environment,
        lambda: any(path.stat().st_size > (16 << 20) for path in target.glob(".*.neuro-part")),
    )

    assert (code, "Traceback" in said) == (130, False)
    assert [path.suffix for path in target.iterdir()] == [".neuro-part"]
    subprocess.run(command(*download), env=environment, check=True)
    assert [path.name for path in target.iterdir()] == ["large"]
    content = (server.home("alice") / "large").read_bytes()
    assert (target / "large").read_bytes() == content


def test_a_tree_that_was_interrupted_has_only_whole_files(
    server: StorageServer, environment: dict[str, str], tmp_path: Path
) -> None:
    source, home = tmp_path / "source", server.home("alice")
    for number in range(4000):
        path = source / f"{number % 20}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 5000)

    code, said = interrupt(
        ["cp", "-r", str(source), "storage:tree"],
        environment,
        lambda: (home / "tree/0").exists() and any((home / "tree/0").iterdir()),
    )

    assert (code, "Traceback" in said) == (130, False)
    deadline = time.monotonic() + 10
    while server.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    files = [path for path in (home / "tree").rglob("*") if path.is_file()]
    assert {path.stat().st_size for path in files} == {5000}
    assert list((home / ".neuro-uploads").iterdir()) == []


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a command on a terminal of its own; what it draws."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env={**environment, "COLUMNS": "100", "LINES": "30"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    drawn = b""
    with suppress(OSError):
        while chunk := os.read(leader, 65536):
            drawn += chunk
    os.close(leader)
    assert process.wait(20) == 0, drawn
    return drawn.decode()


def test_a_terminal_shows_bytes_rate_files_and_time_left(
    server: StorageServer, environment: dict[str, str], tmp_path: Path
) -> None:
    make_large(tmp_path / "large")

    drawn = on_a_terminal(["cp", str(tmp_path / "large"), "storage:large"], environment)
    silent = on_a_terminal(["cp", "-P", str(tmp_path / "large"), "storage:large"], environment)

    assert "/1 file" in drawn
    assert "256.0 MiB" in drawn
    assert "B/s" in drawn
    assert ":0" in drawn
    assert silent == ""


def test_a_terminal_lists_in_columns(server: StorageServer, environment: dict[str, str]) -> None:
    for name in ("one", "two", "three"):
        (server.home("alice") / name).touch()

    assert on_a_terminal(["ls"], environment).splitlines() == ["one  three  two"]


def test_a_dash_is_standard_output_and_input(
    server: StorageServer, environment: dict[str, str], tmp_path: Path
) -> None:
    home = server.home("alice")
    (home / "numbers").write_bytes(bytes(range(256)) * 4096)

    def cp(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command(*words), env=environment, cwd=tmp_path, input=given, capture_output=True
        )

    out = cp("-v", "cp", "--summary", "storage:numbers", "-")
    into = cp("cp", "-", "storage:copy", given=out.stdout)

    assert (out.returncode, into.returncode) == (0, 0), out.stderr + into.stderr
    assert out.stdout == (home / "copy").read_bytes() == (home / "numbers").read_bytes()
    assert b"Copied 1 file" in out.stderr
    assert not (tmp_path / "-").exists()
    for words in (["storage:numbers", "storage:copy", "-"], ["-", "storage:"]):
        assert cp("cp", *words).returncode == 2
    (tmp_path / "-").write_text("a file")
    assert cp("cp", "./-", "storage:named").returncode == 0
    assert (home / "named").read_text() == "a file"
