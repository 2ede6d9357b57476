"""What the engine tests share: an engine with its events gathered, and runs by name."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from neuro.domain.uris import ResourceURI
from neuro.engines.base import (
    Commits,
    Engine,
    Exited,
    NodesChanged,
    RunEvent,
    RunRef,
    RunSpec,
    Session,
    Started,
    Volume,
    Waiting,
)
from neuro.engines.docker import containers
from neuro.engines.docker.api import Daemon
from neuro.engines.docker.engine import DockerEngine
from neuro.engines.docker.settings import DockerSettings
from neuro.engines.sandbox import SandboxEngine, identities
from neuro.engines.sandbox.output import Retention
from neuro.engines.sandbox.settings import SandboxSettings
from neuro.engines.storage import Storage
from tests.engines import docker_daemon, docker_surroundings, made_images
from tests.engines.made_images import MadeImages
from tests.engines.memory import MemoryEngine
from tests.engines.plain import supervisor
from tests.engines.plain.engine import PlainEngine

MIB = 1 << 20
EVERYWHERE = Storage("tests", Path("/"))
PATIENCE = 60.0  # seconds until a thing that must happen has not happened

_numbers = itertools.count()


def spec(*argv: str, **options: Any) -> RunSpec:
    """A small run of ``argv`` with everything else by default."""
    options.setdefault("job_id", f"job-{next(_numbers)}")
    options.setdefault("image", "ubuntu")
    options.setdefault("cpu", 1.0)
    options.setdefault("memory", 512 * MIB)
    for one in options.get("volumes", ()):
        put_into_storage(EVERYWHERE.path_of(one.source))
    return RunSpec(argv=argv, **options)


def mounted(*, source: str | Path, target: str, read_only: bool = True) -> Volume:
    """A volume of a folder or file of this machine: the tests' storage is all of it."""
    uri = ResourceURI("storage", EVERYWHERE.cluster, tuple(str(source).split("/")[1:]))
    return Volume(source=uri, target=target, read_only=read_only)


def put_into_storage(path: str | Path) -> None:
    """Let a folder or file belong to whom the storage belongs to, as the server does."""
    if os.geteuid() == 0:
        owner = f"{identities.STORAGE}:{identities.STORAGE}"
        subprocess.run(["chown", "-R", "-h", owner, str(path)], check=False)


@dataclass(frozen=True)
class Finished:
    """A run that is over, and all it wrote."""

    ref: RunRef
    exited: Exited
    output: bytes

    @property
    def code(self) -> int | None:
        return self.exited.exit_code

    @property
    def lines(self) -> list[str]:
        return self.output.decode().splitlines()


class Runs:
    """An open engine, and the events that it has told so far."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.told: list[RunEvent] = []
        self.nodes_changed = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self.engine.events():
            if isinstance(event, NodesChanged):
                self.nodes_changed.set()
                continue
            async with self._changed:
                self.told.append(event)
                self._changed.notify_all()

    async def start(self, *argv: str, **options: Any) -> RunRef:
        """Start a run and wait until its command runs."""
        begun = spec(*argv, **options)
        await self.engine.start(begun)
        ref = RunRef(begun.job_id, begun.run)
        await self.started(ref)
        return ref

    async def run(self, *argv: str, patience: float = PATIENCE, **options: Any) -> Finished:
        """Run to the end, which comes within ``patience`` seconds."""
        begun = spec(*argv, **options)
        await self.engine.start(begun)
        return await self.finished(RunRef(begun.job_id, begun.run), patience)

    async def shell(self, script: str, **options: Any) -> Finished:
        """Run a shell script to the end."""
        return await self.run("sh", "-c", script, **options)

    async def finished(self, ref: RunRef, patience: float = PATIENCE) -> Finished:
        exited = await self.exited(ref, patience)
        return Finished(ref, exited, await self.output(ref.job_id))

    async def waits(self, ref: RunRef) -> Waiting:
        return await self._event(ref, Waiting)

    async def started(self, ref: RunRef) -> Started:
        return await self._event(ref, Started)

    async def exited(self, ref: RunRef, patience: float = PATIENCE) -> Exited:
        return await self._event(ref, Exited, patience)

    async def _event(self, ref: RunRef, kind: Any, patience: float = PATIENCE) -> Any:
        def found() -> Any:
            return next((e for e in self.told if isinstance(e, kind) and e.ref == ref), None)

        async with asyncio.timeout(patience), self._changed:
            await self._changed.wait_for(lambda: found() is not None)
        return found()

    async def output(self, job_id: str, **options: Any) -> bytes:
        """All that is in the log now, or what came ``since`` a moment."""
        options.setdefault("follow", False)
        if (since := options.pop("since", None)) is not None:
            options["offset"] = (await self.engine.log_extent(job_id, since=since)).first
        async with asyncio.timeout(PATIENCE * 2):
            chunks = [chunk async for chunk in self.engine.logs(job_id, **options)]
        return b"".join(chunk.data for chunk in chunks)

    async def says(self, job_id: str, text: bytes) -> bytes:
        """Follow the log until ``text`` is in it."""
        seen = b""
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(self._follow(job_id)) as log:
            async for data in log:
                seen += data
                if text in seen:
                    return seen
        raise AssertionError(f"{text!r} is not in {seen!r}")

    async def _follow(self, job_id: str) -> AsyncIterator[bytes]:
        async for chunk in self.engine.logs(job_id):
            yield chunk.data

    async def execute(self, ref: RunRef, *argv: str) -> tuple[int | None, bytes, bytes]:
        """Exit code, standard output and errors of a command inside the run."""
        session = await self.engine.exec(ref.job_id, argv, tty=False)
        out, err = await drain(session)
        code = await session.wait()
        await session.close()
        return code, out, err

    async def stop_all(self) -> None:
        """End what was started here and goes on.

        An event may come twice, and late: the start of a run that an earlier test has removed.
        """
        over = {event.ref for event in self.told if isinstance(event, Exited)}
        going = {event.ref for event in self.told if isinstance(event, Started)} - over
        there = [ref for ref in going if await self.engine.stop(ref, 0)]
        for ref in there:
            await self.exited(ref)

    @property
    def jobs(self) -> set[str]:
        """Those of which anything was told."""
        return {event.ref.job_id for event in self.told}

    async def hear_no_more(self) -> None:
        """Take no event that the engine tells from now on."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        await self.hear_no_more()
        await self.engine.close()


async def drain(session: Session) -> tuple[bytes, bytes]:
    """All that a session says until its end: standard output, errors."""
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    async with asyncio.timeout(PATIENCE):
        while (message := await session.read()) is not None:
            parts.setdefault(message[0], []).append(message[1])
    return b"".join(parts[1]), b"".join(parts[2])


async def read_until(session: Session, text: bytes) -> bytes:
    """What a session says until ``text`` is in it."""
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while text not in seen:
            message = await session.read()
            assert message is not None, f"{text!r} is not in {seen!r}"
            seen += message[1]
    return seen


async def gone(traces: Callable[[], set[str]]) -> None:
    """Wait until nothing is left of runs. Fails with what is."""
    left: set[str] = set()

    def are_gone() -> bool:
        nonlocal left
        left = traces()
        return not left

    try:
        await eventually(are_gone, "")
    except AssertionError:
        raise AssertionError(f"left: {sorted(left)}") from None


async def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for something that nobody tells of: the kernel's own tidying up."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


class Has(StrEnum):
    """What an engine of some kind may lack, beside the protocols of ``neuro.engines.base``.

    A test of the contract names what it ``needs``; it runs on the engines that have it.
    """

    PROGRAMS = "any program runs, not only a few words of a shell"
    FENCE = "a run has files, processes, users and a network of its own"
    LIMITS = "memory, processors and processes of a run are limited"
    TERMINALS = "a run can have a terminal"
    SUPERVISORS = "runs outlive the process that the engine is in"
    IMAGES = "an image is pulled, and the engine tells how far that is"
    PRIVILEGES = "a run can be given more rights than others"
    HOST_FENCE = "a run does not reach the services of the machine that it is on"
    LOG_LIMIT = "of output beyond a limit, the oldest is dropped"


def needs(*what: Has | type[Any]) -> pytest.MarkDecorator:
    """Run a test only on engines that have all of this: ``Has``, or protocols."""
    return pytest.mark.needs.with_args(*what)


class EngineKind:
    """How the suite makes an engine of one kind, and looks for what it left behind.

    ``engine`` is its class: which protocols it keeps to is seen there; ``has`` is what else it can.
    """

    name: str
    engine: type[Any]
    has: frozenset[Has] = frozenset(Has)

    def can(self, what: Has | type[Any]) -> bool:
        """Whether engines of this kind have what a test needs."""
        return what in self.has if isinstance(what, Has) else issubclass(self.engine, what)

    def prepare(self) -> None:
        """Start what such engines have in common, in the process that all others come from."""

    def make(self, folder: Path) -> Engine:
        """An engine on ``folder``, not open yet."""
        raise NotImplementedError

    def make_small(self, folder: Path, kept: int) -> Engine:
        """One that keeps about so many bytes of a job's output (where it ``has`` a LOG_LIMIT)."""
        raise NotImplementedError

    def traces(self, folder: Path) -> set[str]:
        """Processes, groups and files of jobs that belong to the engine on ``folder``."""
        raise NotImplementedError

    def end_all(self, folder: Path) -> None:
        """End what still runs after a test that could not stop it, where nothing else does."""

    def supervisor_of(self, folder: Path, ref: RunRef) -> int | None:
        """The process that looks after a run, where there is one of its own."""
        raise NotImplementedError

    def held_image(self) -> str:
        """An image that is not here and does not come (where it ``has`` IMAGES)."""
        raise NotImplementedError

    def let_go(self, image: str) -> None:
        """Let it come now."""
        raise NotImplementedError

    @property
    def pushes(self) -> str:
        """The host of a registry that takes images (of an engine that ``Commits``)."""
        return f"127.0.0.1:{docker_surroundings.PUSHES}"


@contextlib.asynccontextmanager
async def opened(kind: EngineKind, folder: Path) -> AsyncIterator[Engine]:
    """An engine on ``folder`` that nobody has used. Nothing may live on when it is closed."""
    engine = kind.make(folder)
    await engine.open()
    try:
        await engine.adopt([])
        yield engine
    finally:
        try:
            await engine.close()
            # Folders of what a test killed are the next server's to remove.
            await gone(lambda: {one for one in kind.traces(folder) if not one.startswith("folder")})
        finally:
            kind.end_all(folder)


@contextlib.asynccontextmanager
async def emptied(engine: Engine, kind: EngineKind, folder: Path) -> AsyncIterator[Runs]:
    """Runs of one test: stopped and removed at its end. Nothing of them may be left then."""
    runs = Runs(engine)
    try:
        yield runs
        await runs.stop_all()
    finally:
        await runs.hear_no_more()
    jobs = runs.jobs | {path.name for path in folder.glob("jobs/*")}
    await asyncio.gather(*(engine.remove(job_id) for job_id in jobs))
    await gone(lambda: kind.traces(folder))


class SandboxKind(EngineKind):
    name = "sandbox"
    engine = SandboxEngine
    has = frozenset(Has) - {Has.IMAGES}

    def make(self, folder: Path) -> Engine:
        return SandboxEngine(folder, storage=EVERYWHERE)

    def make_small(self, folder: Path, kept: int) -> Engine:
        retention = Retention(total=kept, segment=kept // 4)
        return SandboxEngine(folder, SandboxSettings(retention=retention))

    def traces(self, folder: Path) -> set[str]:
        from neuro.engines.sandbox import cgroups, layout

        living = processes(folder, "neuro-job", "neuro-zygote")
        found = {f"process {pid} {name}" for pid, name in living if name == "neuro-job"}
        zygotes = {str(pid) for pid, name in living if name == "neuro-zygote"}
        # Those that a living zygote keeps for runs to come.
        berths = {path.name for path in folder.glob("berths/*")}
        waiting = {name for name in berths if name.partition("-")[0] in zygotes}
        for kind in ("jobs/*/runs/*/root", "jobs/*/runs/*/layers", "jobs/*", "berths/*"):
            places = [path for path in folder.glob(kind) if path.name not in waiting]
            found |= {f"folder {path.relative_to(folder)}" for path in places}
        mounts = Path("/proc/self/mountinfo").read_text()
        found |= {f"mount {line}" for line in mounts.splitlines() if str(folder) in line}
        identity = (layout.read_record(f"{folder}/installation") or {}).get("id")
        mine = f"neuro-{identity}"
        for parent, names, _ in os.walk("/sys/fs/cgroup"):  # passes over what goes meanwhile
            if parent.endswith((f"/{mine}", f"/{mine}/{cgroups.CONTROL}")):
                kept = {*waiting, cgroups.CONTROL}
                found |= {f"group {parent}/{name}" for name in names if name not in kept}
            # Those of other engines are many where tests run beside these.
            names[:] = [name for name in names if name == mine or not name.startswith("neuro-")]
        return found

    def supervisor_of(self, folder: Path, ref: RunRef) -> int:
        from neuro.engines.sandbox import layout

        place = layout.run_folder(str(folder), ref.job_id, ref.run)
        state = layout.read_state(f"{place}/{layout.STATE}")
        assert state is not None, f"{ref} does not say who looks after it"
        return int(state["supervisor"][0])


def processes(folder: Path, *wanted: str) -> set[tuple[int, str]]:
    """Those of an engine that are called so, and their name."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        # The name first: it is looked at after each test, and most processes have another one.
        name = proc_file(pid, "comm").decode("utf-8", "replace").strip()
        if name in wanted and str(folder).encode() in proc_file(pid, "cmdline").split(b"\0"):
            found.add((int(pid), name))
    return found


def proc_file(pid: str, name: str) -> bytes:
    """What /proc says of a process; nothing of one that is gone."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


class ImageKind(SandboxKind):
    """Runs have an image, and nothing of the machine's userland."""

    name = "image"

    def prepare(self) -> None:
        made_images.userland()

    def make(self, folder: Path) -> Engine:
        return self._engine(folder, SandboxSettings())

    def make_small(self, folder: Path, kept: int) -> Engine:
        retention = Retention(total=kept, segment=kept // 4)
        return self._engine(folder, SandboxSettings(retention=retention))

    def _engine(self, folder: Path, settings: SandboxSettings) -> Engine:
        images = MadeImages(made_images.userland())
        return SandboxEngine(folder, settings, EVERYWHERE, images)


class PlainKind(EngineKind):
    name = "plain"
    engine = PlainEngine
    has = frozenset({Has.PROGRAMS, Has.TERMINALS, Has.SUPERVISORS})

    def make(self, folder: Path) -> Engine:
        return PlainEngine(folder, storage=EVERYWHERE)

    def traces(self, folder: Path) -> set[str]:
        found = {f"folder {path.relative_to(folder)}" for path in folder.glob("jobs/*")}
        return found | {f"process {pid}" for pid in supervisor.processes_of(str(folder))}

    def end_all(self, folder: Path) -> None:
        supervisor.kill_all(str(folder))

    def supervisor_of(self, folder: Path, ref: RunRef) -> int:
        started = folder / "jobs" / ref.job_id / "runs" / str(ref.run) / "started"
        deadline = time.monotonic() + PATIENCE
        while not started.exists():
            assert time.monotonic() < deadline, f"{ref} does not begin"
            time.sleep(0.001)
        return int(json.loads(started.read_text())["supervisor"])


class MemoryKind(EngineKind):
    name = "memory"
    engine = MemoryEngine
    has = frozenset({Has.LOG_LIMIT, Has.IMAGES})

    def make(self, folder: Path) -> Engine:
        return MemoryEngine(storage=EVERYWHERE)

    def make_small(self, folder: Path, kept: int) -> Engine:
        return MemoryEngine(log_limit=kept)

    def traces(self, folder: Path) -> set[str]:
        return set()

    def supervisor_of(self, folder: Path, ref: RunRef) -> None:
        return None

    def held_image(self) -> str:
        return "pulled/image"

    def let_go(self, image: str) -> None:
        pass


class DockerKind(EngineKind):
    name = "docker"
    engine = DockerEngine
    has = frozenset(Has) - {Has.PRIVILEGES, Has.HOST_FENCE}

    def prepare(self) -> None:
        docker_daemon.socket_path(self.name)

    def make(self, folder: Path) -> Engine:
        return DockerEngine(folder, self._settings(Retention()), EVERYWHERE)

    def make_small(self, folder: Path, kept: int) -> Engine:
        return DockerEngine(folder, self._settings(Retention(total=kept, segment=kept // 4)))

    def _settings(self, retention: Retention) -> DockerSettings:
        return DockerSettings(
            host=f"unix://{docker_daemon.socket_path(self.name)}", retention=retention
        )

    def traces(self, folder: Path) -> set[str]:
        found = {f"folder {path.relative_to(folder)}" for path in folder.glob("jobs/*")}
        found |= {f"process {pid} {name}" for pid, name in processes(folder, "neuro-keeper")}
        identity = json.loads((folder / "installation").read_text())["id"]
        label = containers.label_of(identity)
        listed = Daemon(docker_daemon.socket_path(self.name)).containers(label)
        return found | {f"container {one.id}" for one in listed}

    def supervisor_of(self, folder: Path, ref: RunRef) -> int:
        return SandboxKind().supervisor_of(folder, ref)

    def held_image(self) -> str:
        return f"{docker_surroundings.HELD}{secrets.token_hex(4)}"

    def let_go(self, image: str) -> None:
        docker_daemon.let_go(image, self.name)


class PodmanKind(DockerKind):
    name = "podman"

    def can(self, what: Has | type[Any]) -> bool:
        return what is not Commits and super().can(what)

    def end_all(self, folder: Path) -> None:
        """Take back the address that the engine gave this machine: with many, others are slow."""
        identity = json.loads((folder / "installation").read_text())["id"]
        daemon = Daemon(docker_daemon.socket_path(self.name))
        network = daemon.network(containers.network_of(identity, ""))
        for one in (network.addresses.config or ()) if network is not None else ():
            address = f"{one.gateway.partition('/')[0]}/32"
            subprocess.run(["ip", "address", "delete", address, "dev", "lo"], check=False)


KINDS: dict[str, EngineKind] = {
    kind.name: kind
    for kind in (
        *(SandboxKind(), ImageKind(), PlainKind(), MemoryKind()),
        *(DockerKind(), PodmanKind()),
    )
}
