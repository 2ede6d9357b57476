"""The registry: manifests, layers and many at once, beside two others; pushes while it collects.

``BENCH_LAYER`` is the size of the large layer in MiB, 1024 by default.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from benchmarks import registries
from benchmarks.harness import SETTINGS, Result, mb, ms, paired_seconds, resident, server
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import IMAGES
from neuro.server.registry.tables import blobs
from tests.server.registry import test_kills
from tests.server_process import ServerProcess, running_server

MIB = 1 << 20
LAYER = int(os.environ.get("BENCH_LAYER", "1024")) * MIB
MANY, MANY_SIZE = 50, 100 * MIB
GETS, SMALL_PULLS = 300, 100
RUNS = 5
GARBAGE, GARBAGE_SIZE = 100_000, 100
PUSHES = 300
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_PIECE = 4 * MIB


def run() -> Iterator[Result]:
    """All of it."""
    found = registries.peers()
    if not found:
        yield Result("the registry", "not measured", "", "no other registry is here")
    for peer in found:
        with server() as running, registries.serving(peer) as (address, process):
            ours = Caller(f"127.0.0.1:{running.port}", f"{running.user}/bench", running.token)
            theirs = Caller(address, "bench/bench")
            yield from _small(ours, theirs, peer.name)
            yield from _large(ours, theirs, peer.name)
            yield _many(ours, theirs, peer.name, (running.pid, process))
    yield _collecting()


@dataclass
class Caller:
    """Somebody who pushes to one repository of a registry and pulls from it."""

    address: str
    repository: str
    token: str = ""

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address)

    def ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any = None,
        **headers: str,
    ) -> http.client.HTTPResponse:
        """One answer, whose body is still to be read. ``path`` may be a Location."""
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path.removeprefix(f"http://{self.address}"), body, own | named)
        answer = connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())
        return answer

    def push(self, connection: http.client.HTTPConnection, source: Path, digest: str) -> None:
        """Push a blob as Docker does: begin, all of it as one stream, the end."""
        answer = self.ask(connection, "POST", f"/v2/{self.repository}/blobs/uploads/")
        answer.read()
        place = answer.headers["Location"]
        with source.open("rb") as body:
            size = str(source.stat().st_size)
            answer = self.ask(connection, "PATCH", place, body, Content_Length=size)
            answer.read()
        place = answer.headers["Location"]
        joint = "&" if "?" in place else "?"
        self.ask(connection, "PUT", f"{place}{joint}digest={digest}").read()

    def pull(self, connection: http.client.HTTPConnection, digest: str, into: bytearray) -> None:
        """Pull a blob and look at none of it."""
        answer = self.ask(connection, "GET", f"/v2/{self.repository}/blobs/{digest}")
        while answer.readinto(into):
            pass

    def push_image(
        self, connection: http.client.HTTPConnection, folder: Path, size: int, tag: str
    ) -> str:
        """Push an image of one layer of new bytes; returns the layer's digest."""
        layer, digest = made(folder, size)
        self.push(connection, layer, digest)
        body = json.dumps({"made": tag}).encode()
        config = folder / "config"
        config.write_bytes(body)
        config_digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.push(connection, config, config_digest)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": len(body),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": digest,
                    "size": size,
                }
            ],
        }
        path = f"/v2/{self.repository}/manifests/{tag}"
        self.ask(connection, "PUT", path, json.dumps(manifest), Content_Type=MANIFEST).read()
        return digest

    def get_manifest(self, connection: http.client.HTTPConnection, tag: str) -> None:
        path = f"/v2/{self.repository}/manifests/{tag}"
        self.ask(connection, "GET", path, Accept=MANIFEST).read()


def made(folder: Path, size: int) -> tuple[Path, str]:
    """A file of new bytes, and its digest."""
    path, digest = folder / "layer", hashlib.sha256()
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            piece = os.urandom(min(left, 16 * MIB))
            digest.update(piece)
            file.write(piece)
    return path, f"sha256:{digest.hexdigest()}"


def _small(ours: Caller, theirs: Caller, peer: str) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        folder = Path(name)
        actions: dict[str, list[Callable[[], None]]] = {"manifest": [], "pull": []}
        for caller in (ours, theirs):
            connection = caller.connection()
            digest = caller.push_image(connection, folder, MIB, "small")
            into = bytearray(MIB)

            def get(caller: Caller = caller, connection: Any = connection) -> None:
                for _ in range(GETS):
                    caller.get_manifest(connection, "small")

            def pull(
                caller: Caller = caller,
                connection: Any = connection,
                digest: str = digest,
                into: bytearray = into,
            ) -> None:
                for _ in range(SMALL_PULLS):
                    caller.get_manifest(connection, "small")
                    caller.pull(connection, digest, into)

            actions["manifest"].append(get)
            actions["pull"].append(pull)
        for what, kind, count in (
            ("GET of a manifest", "manifest", GETS),
            ("pull of an image of 1 MB", "pull", SMALL_PULLS),
        ):
            mine, other, ratio = paired_seconds(*actions[kind], RUNS)
            yield Result(
                what,
                f"{1 / ratio:.2f} × the rate of {peer}",
                "≥ 1.0 ×",
                f"{ms(mine / count)} beside {ms(other / count)}",
            )


def _large(ours: Caller, theirs: Caller, peer: str) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        folder = Path(name)
        layer: tuple[Path, str] = (folder, "")

        def prepare() -> None:
            nonlocal layer
            layer = made(folder, LAYER)
            os.sync()

        def push(caller: Caller) -> None:
            with contextlib.closing(caller.connection()) as connection:
                caller.push(connection, *layer)

        mine, other, ratio = paired_seconds(
            lambda: push(ours), lambda: push(theirs), RUNS, before=prepare
        )
        size = f"{LAYER // MIB} MiB"
        yield Result(
            f"push of a layer of {size}",
            f"{1 / ratio:.2f} × the rate of {peer}",
            "≥ 1.0 ×",
            f"{mine:.2f} s beside {other:.2f} s",
        )
        prepare()
        for caller in (ours, theirs):
            push(caller)
        into = bytearray(_PIECE)

        def pull(caller: Caller) -> None:
            with contextlib.closing(caller.connection()) as connection:
                caller.pull(connection, layer[1], into)

        mine, other, ratio = paired_seconds(lambda: pull(ours), lambda: pull(theirs), RUNS)
        yield Result(
            f"pull of a layer of {size}",
            f"{1 / ratio:.2f} × the rate of {peer}",
            "≥ 1.0 ×",
            f"{mine:.2f} s beside {other:.2f} s",
        )


def _many(ours: Caller, theirs: Caller, peer: str, processes: tuple[int, int]) -> Result:
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        digests = {}
        for caller in (ours, theirs):
            with contextlib.closing(caller.connection()) as connection:
                digests[caller.address] = caller.push_image(
                    connection, Path(name), MANY_SIZE, "many"
                )

    def pull(caller: Caller) -> None:
        with contextlib.closing(caller.connection()) as connection:
            caller.get_manifest(connection, "many")
            caller.pull(connection, digests[caller.address], bytearray(MIB))

    def all_of_it(caller: Caller) -> None:
        with ThreadPoolExecutor(MANY) as threads:
            list(threads.map(lambda _: pull(caller), range(MANY)))

    with _peaks(processes) as peaks:
        mine, other, ratio = paired_seconds(
            lambda: all_of_it(ours), lambda: all_of_it(theirs), RUNS
        )
    return Result(
        f"{MANY} pulls at once of an image of {MANY_SIZE // MIB} MiB",
        f"{1 / ratio:.2f} × the rate of {peer}; the server {mb(peaks[0])}",
        "≥ 1.0 ×, ≤ 300 MiB",
        f"{mine:.2f} s beside {other:.2f} s; theirs {mb(peaks[1])}",
    )


@contextlib.contextmanager
def _peaks(processes: tuple[int, int]) -> Iterator[list[int]]:
    """The most resident bytes that each of the processes had meanwhile."""
    peaks, over = [0, 0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for number, process in enumerate(processes):
                peaks[number] = max(peaks[number], resident(process))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _collecting() -> Result:
    """How long pushes of small layers take, idle and while garbage is collected."""
    folder = Path(tempfile.mkdtemp(prefix="neuro-bench-"))
    try:
        with running_server(folder / "data", settings=SETTINGS) as running:
            idle = _pushes(running, folder, lambda: False)
        _make_garbage(running)
        program = [str(Path(test_kills.__file__).with_name("sweeping.py"))]
        with running_server(folder / "data", settings=SETTINGS, program=program) as running:
            left = _files(running) / "00"
            busy = _pushes(running, folder, lambda: not any(left.iterdir()))
        percentile = [statistics.quantiles(times, n=100)[98] for times in (idle, busy)]
        return Result(
            f"push of a small layer while {GARBAGE:,} blobs are collected, 99 %",
            f"{percentile[1] / percentile[0]:.2f} of idle",
            "≤ 1.5",
            f"{ms(percentile[1])} beside {ms(percentile[0])};"
            f" medians {ms(statistics.median(busy))} and {ms(statistics.median(idle))}",
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pushes(running: ServerProcess, folder: Path, is_over: Callable[[], bool]) -> list[float]:
    caller = Caller(f"127.0.0.1:{running.port}", f"{running.user}/bench", running.token)
    times = []
    with contextlib.closing(caller.connection()) as connection:
        while len(times) < PUSHES and not is_over():
            source, digest = made(folder, 64 << 10)
            started = time.perf_counter()
            caller.push(connection, source, digest)
            times.append(time.perf_counter() - started)
    return times


def _files(running: ServerProcess) -> Path:
    return running.data_dir / "storage" / IMAGES / "blobs" / "sha256"


def _make_garbage(running: ServerProcess) -> None:
    """Blobs that no repository has."""
    old = (datetime.now(UTC) - timedelta(days=10)).timestamp()
    digests = []
    for number in range(GARBAGE):
        content = number.to_bytes(4, "big") * (GARBAGE_SIZE // 4)
        encoded = hashlib.sha256(content).hexdigest()
        path = _files(running) / encoded[:2] / encoded
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (old, old))
        digests.append(f"sha256:{encoded}")

    def add(connection: Connection) -> None:
        rows = [{"digest": digest, "size": GARBAGE_SIZE} for digest in digests]
        connection.execute(insert(blobs), rows)

    database = Database(running.database_url)
    database.write_now(add)
    database.close()
