"""The process that begins steps of a build: what it is, what it knows, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from neuro.engines.base import File
from neuro.engines.sandbox import SandboxEngine
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT, python
from tests.engines.building import Builder
from tests.engines.harness import EVERYWHERE, Runs, eventually

# In the arguments, the environment and a file of the builder, and in a step before.
_ARGUMENT, _VARIABLE, _PASSWORD, _SECRET = (
    f"{word}-{os.urandom(12).hex()}" for word in ("argument", "variable", "password", "secret")
)
_CREDENTIALS = File(
    target="/kaniko/.docker/config.json", content=_PASSWORD.encode() * 100, mode=0o600
)
# The process that begins steps, by its name: it has one when it has begun a step.
_FIND = """
def name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""  # it has ended meanwhile
run({"argv": ["true"]})
(server,) = (
    int(pid) for pid in os.listdir("/proc") if pid.isdigit() and name(pid) == "neuro-steps\\n"
)
"""


@pytest_asyncio.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    engine = SandboxEngine(tmp_path / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.fixture
def builder(runs: Runs, tmp_path: Path) -> Builder:
    made = Builder(runs, tmp_path / "engine")
    made.put_base()
    return made


def test_it_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {PACKAGE_ROOT!r})"
    code += "; import neuro.builder.step_server; print(*sys.modules)"

    ran = subprocess.run(
        [*python(), "-c", code], env={}, capture_output=True, text=True, check=True
    )

    loaded = set(ran.stdout.split())
    assert "neuro.builder.stepper" in loaded
    slow = {"base64", "json", "re", "selectors", "socket", "subprocess", "tempfile", "typing"}
    assert not loaded & slow
    ours = {name for name in loaded if name.startswith("neuro.")}
    assert not ours & {"neuro.builder.stepping", "neuro.builder.program", "neuro.builder.starting"}


@pytest.mark.root
async def test_it_knows_nothing_of_the_builder_nor_of_other_steps(builder: Builder) -> None:
    pipe = builder.cache / "pipe"
    os.mkfifo(pipe)
    script = f"""
kept = {_ARGUMENT!r}, os.environ["GIVEN"], Path("/kaniko/.docker/config.json").read_text()
run({{"argv": ["true"], "mounts": [["Secret", {{"target": "/s", "content": {_SECRET!r} * 100}}]]}})
binds = [["Bind", {{"source": "/cache", "target": "/pipes", "read_only": False}}]]
print(run({{"argv": ["sh", "-c", "cat /pipes/pipe; echo read"], "mounts": binds}})["out"])
print(len(kept))
"""
    job = asyncio.create_task(
        builder.job(script, env={"GIVEN": _VARIABLE}, files=(_CREDENTIALS,), patience=120.0)
    )
    end = await _writing(pipe)

    (around,) = (one for one in psutil.process_iter() if _ARGUMENT in " ".join(_words(one)))
    within = around.children(recursive=True)
    known = {one.pid: _known(one) for one in (around, *within)}
    opened = {one.pid: _opened(one) for one in within}
    names = [one.name() for one in within]
    os.close(end)
    done = await job

    assert done.lines == ["read", "", "3"]
    # What begins steps, the two processes of the step, and its command.
    assert names == ["neuro-steps", "neuro-step", "neuro-step", "sh", "cat"]
    assert known[around.pid] >= {_ARGUMENT, _VARIABLE, _PASSWORD}  # or nothing was looked into
    assert [known[one.pid] for one in within] == [set()] * len(within)
    server, *step = (opened[one.pid] for one in within)
    assert sum(name.startswith("socket:") for name in server) == 1
    assert not [name for names in step for name in names if name.startswith(("socket:", "/memfd:"))]


async def _writing(pipe: Path) -> int:
    """The other end of a named pipe, once somebody reads it."""
    found: list[int] = []

    def is_read() -> bool:
        try:
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        return bool(found)

    await eventually(is_read, "no step reads")
    return found[0]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it is gone
        return []


def _known(process: psutil.Process) -> set[str]:
    """Which of the words are anywhere in a process, its arguments and its environment."""
    place = f"/proc/{process.pid}"
    seen = [Path(f"{place}/{name}").read_bytes() for name in ("cmdline", "environ")]
    with open(f"{place}/mem", "rb", buffering=0) as memory:
        for line in Path(f"{place}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("r") and "[v" not in line:
                start, _, end = span.partition("-")
                memory.seek(int(start, 16))
                seen.append(memory.read(int(end, 16) - int(start, 16)) or b"")
    words = (_ARGUMENT, _VARIABLE, _PASSWORD, _SECRET)
    return {word for word in words if any(word.encode() in part for part in seen)}


def _opened(process: psutil.Process) -> list[str]:
    place = f"/proc/{process.pid}/fd"
    return [os.readlink(f"{place}/{name}") for name in os.listdir(place)]


async def test_nobody_in_the_job_looks_into_it(builder: Builder) -> None:
    script = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
{_FIND}
def tried(word, call):
    try:
        if call() != -1:
            print(word)
    except OSError:
        pass
for name in ("mem", "environ", "auxv", "syscall"):
    tried(name, lambda: Path(f"/proc/{{server}}/{{name}}").read_bytes())
for name in ("fd/0", "fd/2", "cwd", "root", "exe"):
    tried(name, lambda: os.readlink(f"/proc/{{server}}/{{name}}"))
tried("trace", lambda: libc.ptrace(16, server, 0, 0))
tried("descriptor", lambda: libc.syscall(438, os.pidfd_open(server), 0, 0))
print("over", Path(f"/proc/{{server}}/cmdline").read_text().split(chr(0))[1:4])
"""

    done = await builder.job(script)

    assert done.lines == ["over ['-I', '-S', '-c']"]


async def test_without_it_no_step_is_run(builder: Builder) -> None:
    script = f"""
import select, signal
{_FIND}
gone = os.pidfd_open(server)
os.kill(server, signal.SIGKILL)
select.select([gone], [], [])
print(run({{"argv": ["true"]}})["fault"])
"""

    done = await builder.job(script)

    assert done.lines == ["a step cannot be started: Broken pipe"]


async def test_a_step_that_it_began_outlives_it(builder: Builder) -> None:
    script = f"""
import signal
{_FIND}
place = Path("/cache/outliving")
for name in ("upper", "work"):
    (place / name).mkdir(parents=True)
os.mkfifo("/cache/pipe")
said = []
def output(_, data):
    said.append(data)
    if len(said) == 1:
        os.kill(server, signal.SIGKILL)
        Path("/cache/pipe").write_text("over")
step = stepping.StepRun(
    layers=(Path("/cache/base"),), upper=place / "upper", work=place / "work",
    argv=("sh", "-c", "echo begun; cat /pipes/pipe; exit 7"), output=output,
    mounts=(stepping.Bind(source=Path("/cache"), target="/pipes"),),
)
print(stepping.run_step(step, starter), *said)
"""

    done = await builder.job(script)

    assert done.lines == ["7 b'begun\\n' b'over'"]


async def test_a_step_is_stopped_before_it_is_begun(builder: Builder) -> None:
    script = f"""
import signal, threading
{_FIND}
place = Path("/cache/stopped")
for name in ("upper", "work"):
    (place / name).mkdir(parents=True)
codes, stop = [], stepping.Stop()
step = stepping.StepRun(
    layers=(Path("/cache/base"),), upper=place / "upper", work=place / "work",
    argv=("sh", "-c", "echo begun; sleep 1000"), output=lambda *_: None,
)
os.kill(server, signal.SIGSTOP)
thread = threading.Thread(target=lambda: codes.append(stepping.run_step(step, starter, stop)))
thread.start()
stop.stop()
os.kill(server, signal.SIGCONT)
thread.join()
print(codes)
"""

    done = await builder.job(script)

    assert done.lines == ["[137]"]


async def test_nothing_is_left_of_it_where_the_builder_is_killed(builder: Builder) -> None:
    script = """
import select, signal
os.mkfifo("/cache/pipe")
binds = [["Bind", {"source": "/cache", "target": "/pipes", "read_only": False}]]
words = {"argv": ["sh", "-c", "echo begun > /pipes/pipe; sleep 1000"], "mounts": binds}
killed = os.fork()
if killed == 0:
    run(words)
    os._exit(0)
Path("/cache/pipe").read_text()
others = [
    os.pidfd_open(int(pid)) for pid in os.listdir("/proc")
    if pid.isdigit() and int(pid) not in (1, os.getpid(), killed)
]
os.kill(killed, signal.SIGKILL)
for other in others:
    select.select([other], [], [])
print("begun", len(others))
"""

    done = await builder.job(script)

    # What begins steps, the two processes of the step, its shell, and perhaps a sleep of its own.
    assert done.lines[0] in ("begun 4", "begun 5")
