"""The engine's side of the zygote: start it, ask it, start it again when it dies."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import socket
import struct
import subprocess
from dataclasses import asdict
from typing import Any

from neuro.engines.base import EngineFault, NotReady
from neuro.engines.sandbox import interpreter, layout, wire
from neuro.engines.sandbox.launch import Plan, Request
from neuro.engines.sandbox.taking import take_streams

_PATIENCE = 5.0  # seconds until it is asked why a zygote is not ready
_MUCH_PATIENCE = 60.0  # seconds for one that nobody holds up: on a busy machine it takes long
_FLOCK = struct.Struct("hhqqi4x")
_RETRY_SECONDS = 1.0
_START = (
    "import sys; sys.path.insert(0, {root!r});from neuro.engines.sandbox.zygote import main; main()"
)

log = logging.getLogger("neuro.engine")


class Nursery:
    """Starts runs. One zygote at a time; the next one is asked what one took to its grave."""

    def __init__(self, folder: str, open_files: int) -> None:
        """``open_files`` is the soft limit of descriptors that runs begin with."""
        self._folder = folder
        self._open_files = open_files
        self._plan: Plan | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._asked: dict[int, tuple[Request, asyncio.Future[str]]] = {}
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The zygote's process."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Start the zygote and wait until it is ready. Raises EngineFault."""
        reader = await self._spawn()
        self._task = asyncio.create_task(self._serve(reader))

    async def configure(self, plan: Plan) -> None:
        """Say how runs are to be made from now on."""
        self._plan = plan
        assert self._writer is not None
        self._writer.write(wire.json_frame(wire.CONFIGURE, asdict(plan)))
        await self._writer.drain()

    async def start(self, request: Request) -> str:
        """Begin a run: "started" or "exists". Raises NotReady with the reason otherwise."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asked[number] = (request, answer)
        self._ask(number, request)
        try:
            result = await answer
        finally:
            self._asked.pop(number, None)
        if result not in ("started", "exists"):
            raise NotReady(result)
        return result

    async def close(self) -> None:
        """Let the zygote go; its runs stay."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._writer is not None:
            self._writer.transport.abort()
        if self._process is not None:
            process = self._process
            await asyncio.to_thread(process.wait)

    def _ask(self, number: int, request: Request) -> None:
        if self._writer is not None:
            message = {"id": number, "request": vars(request)}
            self._writer.write(wire.json_frame(wire.START, message))

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        command = [*interpreter.python(), "-c", _START.format(root=interpreter.PACKAGE_ROOT)]
        command += [self._folder, str(theirs.fileno()), str(self._open_files)]

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={},
            )

        try:
            self._process = await asyncio.to_thread(launch)
        except OSError:
            ours.close()
            theirs.close()
            raise
        theirs.close()
        reader, self._writer = await take_streams(ours)
        try:
            ready = await self._first(reader)
        except TimeoutError:
            self._process.kill()
            raise EngineFault("the process that starts jobs does not begin in time") from None
        except asyncio.IncompleteReadError:
            raise EngineFault("the process that starts jobs failed at once") from None
        assert ready == wire.frame(wire.READY)
        return reader

    async def _first(self, reader: asyncio.StreamReader) -> bytes:
        """What a zygote says first. Raises EngineFault where another one has the folder."""
        told = asyncio.ensure_future(reader.readexactly(len(wire.frame(wire.READY))))
        try:
            async with asyncio.timeout(_MUCH_PATIENCE):
                while not (await asyncio.wait([told], timeout=_PATIENCE))[0]:
                    if self._is_held_up():
                        raise EngineFault(
                            f"another server is using {self._folder}: stop it, or choose another"
                            " folder"
                        )
                return await told
        except EngineFault:
            assert self._process is not None
            self._process.kill()
            raise
        finally:
            told.cancel()

    def _is_held_up(self) -> bool:
        """Whether another zygote has the lock of the folder."""
        lock = os.open(
            f"{self._folder}/{layout.ZYGOTE_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        )
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, *_, holder = _FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_GETLK, asked))
        finally:
            os.close(lock)
        assert self._process is not None
        return bool(kind != fcntl.F_UNLCK and holder != self._process.pid)

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        frames = wire.Frames()
        while not self._closing:
            data = await _read(reader)
            if data:
                for _, payload in frames.feed(data):
                    self._answered(json.loads(payload))
                continue
            frames = wire.Frames()
            reader = await self._replace()

    async def _replace(self) -> asyncio.StreamReader:
        """Start the next zygote, however often that fails, and ask it what was not answered."""
        while True:
            if self._writer is not None:
                self._writer.transport.abort()
            if self._process is not None:
                await asyncio.to_thread(self._process.wait)
            try:
                reader = await self._spawn()
                if self._plan is not None:
                    await self.configure(self._plan)
            except (EngineFault, OSError) as error:
                log.error("jobs cannot be started, trying again: %s", error)
                self._refuse(error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for number, (request, _) in list(self._asked.items()):
                self._ask(number, request)
            return reader

    def _refuse(self, error: Exception) -> None:
        """Answer what nobody can be asked: what a dead zygote had claimed, its folder shows."""
        for _, answer in self._asked.values():
            if not answer.done():
                answer.set_exception(NotReady(str(error)))

    def _answered(self, message: dict[str, Any]) -> None:
        asked = self._asked.get(message["id"])
        if asked is not None and not asked[1].done():
            asked[1].set_result(message["answer"])


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""
