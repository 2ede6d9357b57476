"""Builds of images: whole commands, and the builder alone, beside ``docker build`` if it is here.

The layer of 8 GB is built in a job with 300 MB of memory, which holds the page cache, too. It
needs as much room on the disk, and is left out unless ``BENCH_LAYER`` says how many GB it has.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from benchmarks.harness import Result, logged_in, ms, neuro_command, seconds, server
from neuro.engines.sandbox import SandboxEngine
from tests.builder import inside
from tests.builder.table import BUSYBOX
from tests.engines import docker_daemon
from tests.engines.harness import EVERYWHERE, MIB, Runs, mounted, put_into_storage

ROUNDS = 7
STEPS = 20
BASE = "FROM scratch\nCOPY busybox /bin/\n"
CACHED = BASE + 'RUN ["/bin/busybox", "true"]\n' * (STEPS - 1)
# As those of people: each step has a layer of its own, which the push asks for.
LAYERS = BASE + "".join(
    f'RUN ["/bin/busybox", "touch", "/{number}"]\n' for number in range(1, STEPS)
)
ONE = BASE + 'ARG N\nRUN ["/bin/busybox", "true"]\n'


def run() -> Iterator[Result]:
    """All of it."""
    if BUSYBOX is None:
        yield Result("building images", "not measured", "", "busybox-static is not installed")
        return
    with tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        context = folder / "context"
        context.mkdir()
        shutil.copy(BUSYBOX, context / "busybox")
        (context / "cached").write_text(CACHED)
        (context / "layers").write_text(LAYERS)
        (context / "one").write_text(ONE)
        (context / "none").write_text(BASE + "ARG N\n")
        yield from _whole(folder, context)
        put_into_storage(context)
        ours = asyncio.run(_measured(folder, context))
        theirs = _of_docker(context)
    for what, budget in (("cached", 0.5), ("one", 0.15)):
        cached = f"the builder alone, {STEPS} cached steps, not pushed"
        title = cached if what == "cached" else "the builder alone, a RUN that changes nothing"
        there = f"docker build: {ms(theirs[what])}" if theirs else "no docker to compare with"
        yield Result(title, ms(ours[what]), f"≤ {ms(budget)}", there)


def _whole(folder: Path, context: Path) -> Iterator[Result]:
    """Whole commands, from the context to the image in the registry."""
    with server() as running:
        env = logged_in(running, folder)

        def command(name: str, number: int = 0, preset: str = "large") -> list[str]:
            words = ["image", "build", "-F", "-t", "image:bench:v1", "--preset", preset]
            words += ["-f", name, "--build-arg", f"N={number}", str(context)]
            return [*neuro_command(), "--trace", *words]

        def build(name: str, number: int = 0, preset: str = "large") -> float:
            words = command(name, number, preset)
            words.remove("--trace")
            return seconds(
                lambda: subprocess.run(words, env=env, check=True, stdout=subprocess.DEVNULL)
            )

        for name, of, budget in (
            ("cached", f"{STEPS} cached steps, all of it", "≤ 500 ms"),
            ("layers", f"{STEPS} cached steps with a layer each", ""),
        ):
            build(name)
            times = sorted(build(name) for _ in range(ROUNDS))
            yield Result(
                f"`neuro image build`, {of}",
                ms(statistics.median(times)),
                budget,
                f"{ms(times[0])} to {ms(times[-1])}",
            )
            seen = [_looked_at(command(name), env) for _ in range(ROUNDS)]
            for part in seen[0]:
                found = sorted(one[part] for one in seen)
                yield Result(
                    f"the same until {part}",
                    ms(statistics.median(found)),
                    "",
                    f"{ms(found[0])} to {ms(found[-1])}",
                )
        build("none")
        build("one")
        more = [build("one", number) - build("none", number) for number in range(1, ROUNDS + 1)]
        yield Result(
            "the same, a RUN that changes nothing more",
            ms(statistics.median(more)),
            "≤ 150 ms",
            f"medians of {ROUNDS} differences of pairs",
        )
        size = int(os.environ.get("BENCH_LAYER", "0"))
        if size:
            fill = f'["/bin/busybox", "dd", "if=/dev/zero", "of=/f", "bs=1M", "count={size}000"]'
            (context / "large").write_text(f"{BASE}RUN {fill}\n")
            took = build("large", preset="lean")
            yield Result(
                f"a layer of {size} GB of zeros, built and pushed in a job with 300 MB",
                f"{took:.0f} s",
                "it can be built",
            )


def _looked_at(command: list[str], env: dict[str, str]) -> dict[str, float]:
    """Seconds from the start of a traced build to its moments."""
    began = time.time()
    ran = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    ended = time.time()
    asked = re.search(r"^([\d.]+) > POST \S*/jobs(?:\?|$)", ran.stderr, re.MULTILINE)
    job = re.search(r"^Job ID: (\S+)", ran.stdout, re.MULTILINE)
    assert asked is not None
    assert job is not None
    read = [*neuro_command(), "logs", "--timestamps", job[1]]
    log = subprocess.run(read, env=env, check=True, capture_output=True, text=True)
    lines = [datetime.fromisoformat(it.split()[0]).timestamp() for it in log.stdout.splitlines()]
    return {
        "its job is submitted": float(asked[1]),
        "the first line of its log": lines[0] - began,
        "the last line of its log": lines[-1] - began,
        "its end": ended - began,
    }


async def _measured(folder: Path, context: Path) -> dict[str, float]:
    """Seconds of a whole build whose steps are cached, and of one RUN."""
    engine = SandboxEngine(folder / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    try:
        done = await runs.run(
            *inside.command("timed"),
            nesting=True,
            build_cache="bench",
            image="neuro/builder",
            memory=1024 * MIB,
            env={"ROUNDS": str(ROUNDS)},
            volumes=(
                mounted(source=context, target="/context"),
                mounted(source=inside.TESTS, target=inside.PLACE),
            ),
            patience=600.0,
        )
    finally:
        await runs.stop_all()
        await runs.close()
    (found,) = inside.results(done.output)
    return _seconds(found)


def _seconds(found: dict[str, list[float]]) -> dict[str, float]:
    medians = {name: statistics.median(times) for name, times in found.items()}
    return {"cached": medians["cached"], "one": medians["one"] - medians["none"]}


def _of_docker(context: Path) -> dict[str, float]:
    if docker_daemon.lacking() is not None:
        return {}
    host = f"unix://{docker_daemon.socket_path()}"
    found: dict[str, list[float]] = {"cached": [], "one": [], "none": []}
    for number in range(ROUNDS + 1):
        for name, times in found.items():
            began = time.monotonic()
            words = ["docker", "build", "-q", f"--build-arg=N={number}", "-f", context / name]
            ran = subprocess.run(
                [*words, context],
                capture_output=True,
                check=False,
                env={**os.environ, "DOCKER_HOST": host},
            )
            if ran.returncode != 0:
                return {}
            if number:  # the first one makes what is cached then
                times.append(time.monotonic() - began)
    return _seconds(found)
