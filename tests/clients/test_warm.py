"""Forks of a warm process are what whole processes would be, and none of them is left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.flow_client import FlowClient
from tests.clients.reference_client import PATIENCE, ReferenceClient
from tests.clients.warm import MODULES, Warm, surroundings
from tests.server_process import ServerProcess

PROBE = Path(__file__).with_name("probe.py").read_text()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The probe as a program of this interpreter."""
    path = tmp_path / "bin" / "program"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{PROBE}")
    path.chmod(0o755)
    return path


@pytest.fixture
def warm(program: Path, tmp_path: Path) -> Iterator[Warm]:
    """The same program, imported."""
    folder = tmp_path / "warm"
    folder.mkdir()
    made = Warm(program, folder, python=Path(sys.executable), variables=surroundings())
    yield made
    assert made.close() == ""


def run(command: list[str], folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """As the clients are run."""
    return subprocess.run(
        command,
        **{"env": {**surroundings(), "HOME": str(folder)}, "umask": 0o027, **more},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_command_is_given_what_a_whole_process_is(
    warm: Warm, program: Path, tmp_path: Path
) -> None:
    run(warm.command("spoil"), tmp_path)
    words = ["state", "", "two  words", "*", "файл", "--", "a\nb"]
    environment = {**surroundings(), "HOME": "/somewhere", "A": "", "B": "x=y\n", "Ю": "я"}

    forked = run(warm.command(*words), tmp_path, env=environment)

    whole = run([str(program), *words], tmp_path, env=environment)
    assert json.loads(forked.stdout) == json.loads(whole.stdout)
    assert json.loads(forked.stdout)["imported"][0] == "/somewhere/.probe/logs"
    assert (forked.returncode, forked.stderr) == (whole.returncode, whole.stderr) == (0, "")


@pytest.mark.parametrize(
    "words",
    ["exit 0", "exit 7", "spoil", "fail", *(f"die {signal.Signals(n)}" for n in (2, 9, 13, 15))],
)
def test_a_command_ends_as_a_whole_process_does(
    warm: Warm, program: Path, tmp_path: Path, words: str
) -> None:
    forked = run(warm.command(*words.split()), tmp_path)

    whole = run([str(program), *words.split()], tmp_path)
    assert (forked.returncode, forked.stdout) == (whole.returncode, whole.stdout)
    # A traceback begins in what runs the program.
    assert forked.stderr.splitlines()[-1:] == whole.stderr.splitlines()[-1:]


def test_what_is_not_on_pipes_is_a_whole_process(warm: Warm, tmp_path: Path) -> None:
    environment = {"HOME": "/", "WANTED": "which the warm process would refuse"}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            warm.command("state"), env=environment, stdin=subprocess.DEVNULL, stdout=out
        )
        assert process.wait(PATIENCE) == 0

    state = json.loads((tmp_path / "out").read_text())
    assert state["imported"][-1] == environment["WANTED"]


@pytest.mark.parametrize(
    "more",
    [{"WANTED": "1"}, {"LC_ALL": "C.UTF-8"}, {"TZ": "Asia/Tokyo"}, {"PYTHONUNBUFFERED": "1"}],
)
def test_variables_that_change_what_is_imported_are_refused(
    warm: Warm, tmp_path: Path, more: dict[str, str]
) -> None:
    environment = {**surroundings(), "HOME": "/", **more}

    refused = run(warm.command("state"), tmp_path, env=environment)

    assert refused.returncode == -signal.SIGKILL
    assert refused.stderr == f"imported with other values of {', '.join(more)}\n"


def test_a_program_that_cannot_be_imported_is_told(program: Path, tmp_path: Path) -> None:
    program.write_text("import no_such_module_at_all")

    with pytest.raises(RuntimeError, match="No module named 'no_such_module_at_all'"):
        Warm(program, tmp_path, python=Path(sys.executable), variables=surroundings())


def waits(warm: Warm, folder: Path) -> subprocess.Popen[str]:
    """A command that has begun and never ends; its output ends when nothing of it is left."""
    process = subprocess.Popen(
        warm.command("wait"),
        env={**surroundings(), "HOME": str(folder)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_who_asked_is_the_commands(warm: Warm, tmp_path: Path, number: int) -> None:
    with waits(warm, tmp_path) as process:
        process.send_signal(number)

        assert process.communicate(timeout=PATIENCE) == ("", "")

    assert process.returncode == -number


def test_closing_ends_what_goes_on(warm: Warm, tmp_path: Path, program: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Warm(program, folder, python=Path(sys.executable), variables=surroundings())

    with waits(second, tmp_path) as process:
        second.close()

        assert process.communicate(timeout=PATIENCE)[0] == ""

    assert process.returncode == -signal.SIGKILL
    late = run(second.command("exit", "0"), tmp_path)
    assert late.returncode == -signal.SIGKILL
    assert "the warm process cannot be reached" in late.stderr


WORKER = """
import signal, sys
from pathlib import Path
from tests.clients.test_warm import waits
from tests.clients.warm import Warm, surroundings

program, folder = map(Path, sys.argv[1:])
warm = Warm(program, folder, python=Path(sys.executable), variables=surroundings())
process = waits(warm, folder)
print(process.pid, process.stdout.readline(), flush=True)
signal.pause()
"""


def test_nothing_is_left_when_a_worker_is_killed(program: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, program, tmp_path],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        relay, command = map(int, worker.stdout.readline().split())
        keeper = _parent(command)
        ends = {os.pidfd_open(pid) for pid in (relay, command, keeper, _parent(keeper))}
        assert _parent(_parent(keeper)) == worker.pid

        worker.kill()

        while ends:
            ended, _, _ = select.select(ends, [], [], PATIENCE)
            assert ended, "not all have ended"
            for fd in ended:
                os.close(fd)
                ends.remove(fd)


def _parent(pid: int) -> int:
    """The process that has started this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


LIVE = """\
kind: live
jobs:
  test:
    image: ubuntu
    cmd: "true"
"""


@pytest.fixture(scope="module")
def flow(
    make_client: Callable[[], ReferenceClient], server: ServerProcess, named: Callable[[str], str]
) -> FlowClient:
    """A workspace with a job that has not run."""
    client = make_client()
    client.run("config", "login-with-token", server.token, server.url)
    flow = FlowClient(client, named("whole").replace("-", "_"))
    flow.write("live", LIVE)
    flow.run("ps")  # which makes the project
    return flow


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "--help",
        "run --help",
        "nope",
        "config show-token",
        "ls storage:nope",
        "status nope",
    ],
)
def test_neuro_prints_what_it_prints_as_a_whole_process(
    client: ReferenceClient, words: str
) -> None:
    whole = run(client.command(*words.split()), client.home, env=client.variables())

    forked = client.run(*words.split(), ok=False)

    assert (forked.code, forked.out, forked.err) == (whole.returncode, whole.stdout, whole.stderr)
    assert whole.stdout or whole.stderr


@pytest.mark.parametrize("words", ["--version", "--help", "nope", "ps", "kill test", "run nope"])
def test_neuro_flow_prints_what_it_prints_as_a_whole_process(flow: FlowClient, words: str) -> None:
    whole = run(flow.command(*words.split()), flow.workspace, env=flow.environment())

    forked = flow.run(*words.split(), code=whole.returncode)

    assert (forked.out, forked.err) == (whole.stdout, whole.stderr)
    assert whole.stdout or whole.stderr


def test_nothing_of_the_warm_process_is_in_what_it_imported(
    environment: Path, program: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "of-the-warm-one"
    folder.mkdir()
    python = environment / "bin" / "python"
    modules = [*MODULES["neuro"], *MODULES["neuro-flow"]]
    warm = Warm(program, folder, python=python, variables=surroundings(), modules=modules)

    found = run(warm.command("search", "of-the-", "warm-one"), tmp_path)
    sure = run(warm.command("search", "of-the-warm-one"), tmp_path)

    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert set(sure.stdout.splitlines()) == {"of-the-warm-one"}, "it finds its own argument"
    assert warm.close() == ""
