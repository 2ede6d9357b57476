"""An engine of real processes without a fence, for tests of servers.

All that it knows is in one folder, and each run has a small supervisor of its own there
(``supervisor``). So any server process on the machine may take its runs over, also from one that
is frozen or was killed, and two that start the same run at once start it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from neuro.domain.resources import GIB
from neuro.engines.base import (
    Connection,
    EngineFault,
    Event,
    ExitCause,
    Exited,
    LogChunk,
    LogExtent,
    Node,
    NotListening,
    NotReady,
    Placement,
    RunNotFound,
    RunRef,
    RunSpec,
    RunState,
    Session,
    Started,
    Usage,
    Volume,
)
from neuro.engines.storage import Storage
from tests.engines.plain import supervisor
from tests.engines.plain.session import AttachSession, ExecSession, TcpConnection

BLOCK = 256 << 10
# Between two tries to reach a supervisor that is about to listen, or about to go.
_PAUSE = 0.01
_PROGRAM = supervisor.__file__
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PlainEngine:
    """See the protocol."""

    name = "plain"
    placement = Placement.LOCAL

    def __init__(self, folder: Path, *, gpus: int = 0, storage: Storage | None = None) -> None:
        self.folder = folder
        self._storage = storage
        self._gpus = gpus
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._watches: dict[RunRef, asyncio.Task[None]] = {}
        self._samples: dict[str, tuple[float, float]] = {}
        self.notices: list[str] = []
        self.trouble: str | None = None
        self.gpu_model: str | None = "Test GPU" if gpus else None

    @property
    def host_address(self) -> str:
        return "127.0.0.1"

    @property
    def files_owner(self) -> int | None:
        return None

    async def open(self) -> None:
        (self.folder / "jobs").mkdir(parents=True, exist_ok=True)

    async def close(self) -> None:
        watches = list(self._watches.values())
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        self._watches.clear()

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        jobs = {ref.job_id for ref in known}
        for job in (self.folder / "jobs").iterdir():
            if job.name not in jobs:
                await asyncio.to_thread(_remove, job)
        return await self.resync(known)

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        states = {}
        for ref in refs:
            state = self._state(ref)
            if state is not None:
                states[ref] = state
                if state.exited is None:
                    self._watch(ref)
        return states

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self._events.get()

    # Runs.

    async def start(self, spec: RunSpec) -> None:
        ref = RunRef(spec.job_id, spec.run)
        if spec.disks:
            raise EngineFault("This engine has no disks.")
        if spec.nesting or spec.build_cache:
            raise EngineFault("This engine builds no images.")
        run = self._run(ref)
        if not (run / "begun").exists():
            try:
                await self._spawn(spec, run)
            except OSError as error:
                raise NotReady(str(error)) from error
        if not (run / "withdrawn").exists():
            self._watch(ref)

    async def _spawn(self, spec: RunSpec, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        given = msgspec.to_builtins(spec)
        given["mounts"] = [(self._path_of(one), one.target) for one in spec.volumes]
        _write(run / "spec", msgspec.json.encode(given))
        if not await asyncio.to_thread(self._begin, run):
            raise NotReady(f"the supervisor of {spec.job_id} did not begin")

    def _path_of(self, volume: Volume) -> str:
        if self._storage is None:
            raise EngineFault("This engine has no storage.")
        return self._storage.path_of(volume.source)

    def _begin(self, run: Path) -> bytes:
        """Start the run's supervisor; what it says once the run is begun."""
        with (self.folder / "supervisors.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", _PROGRAM, str(run.parent.parent), str(run)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
                check=False,
            )
        return done.stdout

    async def stop(self, ref: RunRef, grace: float) -> bool:
        run = self._run(ref)
        run.mkdir(parents=True, exist_ok=True)
        try:
            # Whoever was about to start it, in whichever process, finds that it is begun.
            os.close(os.open(run / "begun", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if (run / "withdrawn").exists():
                return False
        else:
            (run / "withdrawn").touch()
            return False
        with contextlib.suppress(OSError):
            reader, writer = await self._ask(ref, {"op": "stop", "grace": grace})
            await reader.readline()
            writer.close()
        self._watch(ref)
        return True

    async def remove(self, job_id: str) -> None:
        if self._live(job_id) is not None:
            raise EngineFault(f"{job_id} is still running: stop it before it is removed")
        await asyncio.to_thread(_remove, self.folder / "jobs" / job_id)

    # What happens to them.

    def _watch(self, ref: RunRef) -> None:
        if ref not in self._watches:
            self._watches[ref] = asyncio.create_task(self._tell(ref))

    async def _tell(self, ref: RunRef) -> None:
        """Tell what the run's supervisor tells; at its end, what it wrote down."""
        told = False
        while True:
            with contextlib.suppress(OSError, ValueError):
                reader, writer = await self._ask(ref, {"op": "watch"})
                try:
                    while line := await reader.readline():
                        if "started" in json.loads(line) and not told:
                            told = True
                            self._events.put_nowait(_started(ref, json.loads(line)["started"]))
                finally:
                    writer.close()
            state = await asyncio.to_thread(self._state, ref)
            if state is None or state.exited is not None:
                break
            await asyncio.sleep(_PAUSE)
        for event in () if state is None else (state.started, state.exited):
            if event is not None and not (told and isinstance(event, Started)):
                self._events.put_nowait(event)
        self._watches.pop(ref, None)

    async def _ended(self, ref: RunRef) -> RunState:
        """The run once its supervisor, which has told all, is gone."""
        while True:
            state = await asyncio.to_thread(self._state, ref)
            if state is None or state.exited is not None:
                return state or RunState()
            await asyncio.sleep(_PAUSE)

    def _state(self, ref: RunRef) -> RunState | None:
        run = self._run(ref)
        if not (run / "begun").exists() or (run / "withdrawn").exists():
            return None
        is_lost = not _is_held(run / "lock")  # asked before reading: it writes and then goes
        started, ended = _read(run / "started"), _read(run / "exit")
        began = None if started is None else _started(ref, started["at"])
        if ended is not None:
            return RunState(started=began, exited=_exited(ref, ended))
        if is_lost:
            supervisor.kill_all(str(run))
            lost = {
                "at": time.time_ns(),
                "exit_code": None,
                "cause": "lost",
                "message": "its supervisor is gone",
                "output_bytes": _size(run.parent.parent / "output"),
            }
            _write(run / "exit", json.dumps(lost).encode())
            return RunState(started=began, exited=_exited(ref, lost))
        return RunState(started=began)

    def _run(self, ref: RunRef) -> Path:
        if "/" in ref.job_id or ref.job_id.startswith("."):
            raise ValueError(f"{ref.job_id} is not the id of a job")
        return self.folder / "jobs" / ref.job_id / "runs" / str(ref.run)

    def _live(self, job_id: str) -> RunRef | None:
        """The run of a job that goes on."""
        runs = self.folder / "jobs" / job_id / "runs"
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(runs), key=int, reverse=True):
                ref = RunRef(job_id, int(name))
                state = self._state(ref)
                if state is not None and state.exited is None:
                    return ref
        return None

    async def _ask(
        self, ref: RunRef, message: dict[str, Any]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the run's supervisor. Raises OSError."""
        folder = os.open(self._run(ref), os.O_PATH | os.O_DIRECTORY)
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.setblocking(False)
                place = f"/proc/self/fd/{folder}/socket"  # its own path may be too long
                await asyncio.get_running_loop().sock_connect(connection, place)
            except BaseException:
                connection.close()
                raise
        finally:
            os.close(folder)
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        writer.write(json.dumps(message).encode() + b"\n")
        return reader, writer

    # Looking in.

    async def logs(
        self, job_id: str, *, offset: int = 0, follow: bool = True, timestamps: bool = False
    ) -> AsyncGenerator[LogChunk, None]:
        self._printed(job_id)
        async for chunk in self._output(job_id, offset, follow=follow, timestamps=timestamps):
            yield chunk

    async def log_extent(self, job_id: str, *, since: datetime | None = None) -> LogExtent:
        folder = self._printed(job_id)
        first = 0 if since is None else _seek(folder, since)
        return LogExtent(first, _size(folder / "output"))

    def _printed(self, job_id: str) -> Path:
        folder = self.folder / "jobs" / job_id
        if not (folder / "output").exists():
            raise RunNotFound(job_id)
        return folder

    async def _output(
        self,
        job_id: str,
        position: int,
        *,
        follow: bool,
        timestamps: bool = False,
        only: RunRef | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        folder = self.folder / "jobs" / job_id
        stamp = _Stamper(folder) if timestamps else None
        asked: tuple[RunRef, asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            with (folder / "output").open("rb") as file:
                while True:
                    live = self._live(job_id) if follow else None
                    while data := os.pread(file.fileno(), BLOCK, position):
                        start, position = position, position + len(data)
                        said = stamp(data, position) if stamp is not None else data
                        yield LogChunk(start, position, said)
                    if live is None or only not in (None, live):
                        return
                    try:
                        if asked is None or asked[0] != live:
                            if asked is not None:
                                asked[2].close()
                            first = {"op": "follow", "after": position}
                            asked = live, *await self._ask(live, first)
                        else:
                            asked[2].write(json.dumps({"after": position}).encode() + b"\n")
                        if not await asked[1].readline():
                            asked = None
                    except OSError:
                        asked = None
                    if asked is None:
                        await asyncio.sleep(_PAUSE)
        finally:
            if asked is not None:
                asked[2].close()

    async def attach(self, job_id: str, *, stdin: bool, output: bool) -> Session:
        ref = self._going(job_id)
        try:
            reader, writer = await self._ask(ref, {"op": "attach", "stdin": stdin})
            opened = json.loads(await reader.readline() or b"null")
        except OSError:
            opened = None
        if opened is None:
            raise RunNotFound(job_id)
        stream = self._output(job_id, opened["end"], follow=True, only=ref) if output else None

        async def code() -> int | None:
            ended = (await self._ended(ref)).exited
            return None if ended is None else ended.exit_code

        return AttachSession(reader, writer, opened["taken"], stream, code)

    async def exec(self, job_id: str, argv: Collection[str], *, tty: bool) -> Session:
        ref = self._going(job_id)
        try:
            reader, writer = await self._ask(ref, {"op": "exec", "argv": [*argv], "tty": tty})
        except OSError:
            raise RunNotFound(job_id) from None
        return ExecSession(reader, writer)

    async def connect(self, job_id: str, port: int) -> Connection:
        """The machine's own port: nothing stands between its runs."""
        self._going(job_id)
        try:
            return TcpConnection(*await asyncio.open_connection("127.0.0.1", port))
        except OSError:
            raise NotListening(f"nothing in {job_id} listens on port {port}") from None

    async def commit(self, job_id: str, image: str) -> None:
        await asyncio.to_thread(self._keep, self._run(self._going(job_id)), image)

    def _keep(self, run: Path, image: str) -> None:
        spec = json.loads((run / "spec").read_bytes())
        targets = [target for _, target in spec["mounts"]]
        targets += [given["target"] for given in spec["files"]]
        foreign = {f"{run}/root/{target.strip('/')}" for target in targets}
        kept = Path(supervisor.image_folder(str(run.parent.parent), image))
        draft = kept.with_name(f".{time.monotonic_ns()}")
        shutil.copytree(
            run / "root",
            draft / "new",
            symlinks=True,
            ignore=lambda folder, names: [name for name in names if f"{folder}/{name}" in foreign],
        )
        if kept.exists():
            kept.rename(draft / "old")
        (draft / "new").rename(kept)
        shutil.rmtree(draft)

    async def usage(self, job_id: str) -> Usage:
        ref = self._going(job_id)
        memory, seconds = 0, 0.0
        for pid in supervisor.processes_of(str(self._run(ref))):
            with contextlib.suppress(OSError):
                memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                seconds += (int(fields[11]) + int(fields[12])) / _TICKS
        now = time.monotonic()
        before, used = self._samples.get(job_id, (now - 1, 0.0))
        self._samples[job_id] = now, seconds
        cpu = max(0.0, (seconds - used) / max(0.001, now - before))
        return Usage(at=datetime.now(UTC), cpu=cpu, memory=memory)

    async def nodes(self) -> list[Node]:
        gpus = tuple(map(str, range(self._gpus)))
        return [Node(name="plain", cpu=float(os.cpu_count() or 1), memory=64 * GIB, gpus=gpus)]

    def _going(self, job_id: str) -> RunRef:
        live = self._live(job_id)
        if live is None:
            raise RunNotFound(job_id)
        return live


class _Stamper:
    """Puts the time of its first byte before each line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at_line_start = True

    def __call__(self, data: bytes, end: int) -> bytes:
        offsets, times = _times(self._folder)
        position, parts = end - len(data), []
        for line in data.splitlines(keepends=True) if b"\r" not in data else _lines(data):
            if self._at_line_start:
                moment = times[max(0, bisect_right(offsets, position) - 1)]
                seconds, rest = divmod(moment, 1_000_000_000)
                at = datetime.fromtimestamp(seconds, UTC)
                parts.append(f"{at:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode())
            parts.append(line)
            position += len(line)
            self._at_line_start = line.endswith(b"\n")
        return b"".join(parts)


def _lines(data: bytes) -> list[bytes]:
    *whole, rest = data.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def _seek(folder: Path, since: datetime) -> int:
    offsets, times = _times(folder)
    number = bisect_left(times, int(since.timestamp() * 1_000_000) * 1000)
    return offsets[number] if number < len(offsets) else _size(folder / "output")


def _times(folder: Path) -> tuple[array[int], array[int]]:
    data = (folder / "times").read_bytes()
    numbers = array("Q", data[: len(data) - len(data) % supervisor.RECORD.size])
    return numbers[0::2], numbers[1::2]


def _is_held(lock: Path) -> bool:
    """Whether the supervisor lives."""
    try:
        fd = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _remove(job: Path) -> None:
    for run in job.glob("runs/*"):
        with contextlib.suppress(OSError, ValueError):
            started = _read(run / "started")
            if started is not None and _is_held(run / "lock"):
                os.kill(started["supervisor"], 9)
        supervisor.kill_all(str(run))
    shutil.rmtree(job, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}.new")
    draft.write_bytes(content)
    draft.rename(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _started(ref: RunRef, at: int) -> Started:
    return Started(ref=ref, at=_moment(at))


def _exited(ref: RunRef, ended: dict[str, Any]) -> Exited:
    return Exited(
        ref=ref,
        at=_moment(ended["at"]),
        exit_code=ended["exit_code"],
        cause=ExitCause(ended["cause"]),
        message=ended["message"],
        output_bytes=ended["output_bytes"],
    )
