"""Builds several Dockerfiles in one job, which may nest: its program, and what tests get of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from neuro.domain.images import BUILD_VOLUMES
from neuro.engines.images.reach import as_environment, of_environment, plain
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT
from tests.builder.table import Case, set_modes

_MARK = "result: "
PATIENCE = 60.0  # seconds
TESTS, PLACE = Path(__file__).parents[1], "/given/tests"


def command(function: str) -> list[str]:
    """What the job executes: a function of this module."""
    code = (
        f"import sys; sys.path[:0] = ['/given', {PACKAGE_ROOT!r}];"
        f"from tests.builder.inside import {function}; {function}()"
    )
    return [sys.executable, "-c", code]


def results(output: bytes) -> list[dict[str, Any]]:
    """What the job told, in order."""
    lines = output.decode("utf-8", "replace").splitlines()
    return [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]


def with_registry() -> None:
    """Build what is told, one after the other, beside a registry in the same job."""
    from tests.builder.registry import place

    busybox = Path("/context/busybox").read_bytes()
    with place(Path("/cache"), busybox, context=Path("/workspace")) as here:
        for number, text in enumerate(json.loads(os.environ["TEXTS"])):
            began = time.monotonic()
            secret = f"--secret=id=builders,src={PLACE}/builder/inside.py"
            text = text.replace("HOST", here.host)
            code, said = here.build(text, secret, to=f"me/made:v{number}")
            seconds = time.monotonic() - began
            found: dict[str, Any] = {"code": code, "said": said, "seconds": seconds}
            if code == 0:
                found["layers"] = here.layers(tag=f"v{number}")
                found["config"] = here.config(tag=f"v{number}")
            print(_MARK + json.dumps(found), flush=True)


def reach() -> None:
    """What the engine told of where a build may go."""
    print(_MARK + json.dumps(msgspec.structs.asdict(of_environment(os.environ))))


def stopped_in_push() -> None:
    """Build once and stop it while its first layer is pushed, and build again."""
    from tests.builder.registry import place

    with place(Path("/cache"), context=Path("/workspace")) as here:
        reached, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            reached.set()
            go_on.wait()

        (here.context / "Dockerfile").write_text(f"FROM {here.host}/base/small:v1\nWORKDIR /w\n")
        start = f"import sys; sys.path[:0] = [{PACKAGE_ROOT!r}]"
        code = f"{start}; from neuro.builder.program import main; main()"
        words = [f"--destination={here.host}/me/made:v1"]
        for is_first in (True, False):
            here.registry.before_upload = hold if is_first else lambda: None
            argv = [sys.executable, "-c", code, *words]
            env = {name: value for name, value in os.environ.items() if name != "NEURO_JOB_ID"}
            env |= as_environment(plain(here.host))
            with subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
            ) as building:
                if is_first and reached.wait(PATIENCE):
                    building.send_signal(signal.SIGTERM)
                out, _ = building.communicate()
                go_on.set()
            found = {"code": building.returncode, "said": out.decode()}
            try:
                found["layers"] = here.layers()
            except KeyError:
                found["layers"] = None
            print(_MARK + json.dumps(found), flush=True)


def timed() -> None:
    """Seconds of the whole program, again and again: cached, with one RUN, and without."""
    found: dict[str, list[float]] = {"cached": [], "one": [], "none": []}
    start = f"import sys; sys.path[:0] = [{PACKAGE_ROOT!r}]; from neuro.builder.program import main"
    for number in range(int(os.environ["ROUNDS"]) + 1):
        for name, times in found.items():
            words = ["--context=/context", f"--dockerfile={name}", f"--build-arg=N={number}"]
            argv = [sys.executable, "-c", f"{start}; main()", *words, "--no-push"]
            began = time.monotonic()
            # Where it is installed, Python has it compiled.
            shown = json.dumps([{"path": "/context", "read_only": True}])
            env = {"PYTHONPYCACHEPREFIX": "/tmp/compiled", BUILD_VOLUMES: shown}
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=env)
            if number:  # the first one makes what is cached then
                times.append(time.monotonic() - began)
    print(_MARK + json.dumps(found), flush=True)


def table() -> None:
    from neuro.builder.faults import BuildFault
    from neuro.dockerfile.tree import DockerfileError
    from tests.builder.built import build

    set_modes(Path("/context"))
    for words in json.loads(os.environ["CASES"]):
        case = Case(**words)
        found: dict[str, Any] = {}
        try:
            with build(
                case.text,
                Path("/context"),
                Path("/cache"),
                ignore=case.ignore,
                target=case.target,
                arguments=case.arguments,
            ) as built:
                found = {"files": built.files(), "config": built.config()}
                found["output"] = built.output
        except (BuildFault, DockerfileError) as error:
            found = {"error": str(error)}
        print(_MARK + json.dumps(found), flush=True)
