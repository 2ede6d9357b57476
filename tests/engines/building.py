"""Steps of builds, run by the platform's own program in a job that may nest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuro.engines.sandbox.builds import Builds
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT
from tests.engines import made_images
from tests.engines.harness import MIB, Finished, Runs

BASE = "/cache/base"
_MARK = "result: "
# A step is told as the words of ``StepRun``, and its mounts as (class, words).
_DRIVER = f"""
import base64, json, os, sys, tempfile, threading
sys.path.insert(0, {PACKAGE_ROOT!r})
from pathlib import Path
from neuro.builder import stepping
from neuro.builder.starting import Starter

starter = Starter()

def mount(kind, **words):
    if "content" in words:
        words["content"] = words["content"].encode()
    if "source" in words:
        words["source"] = Path(words["source"])
    words["layers"] = tuple(map(Path, words.get("layers", ())))
    if kind != "Bind":
        words.pop("layers")
    return getattr(stepping, kind)(**words)

def changes(folder):
    found = {{}}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = f"{{place}}/{{name}}"
            status = os.lstat(path)
            found[path[len(folder) + 1:]] = [status.st_mode, status.st_uid, status.st_size]
    return found

def run(words):
    place = Path(tempfile.mkdtemp(dir="/cache" if os.path.isdir("/cache") else None))
    upper = Path(words.pop("upper", place / "upper"))
    upper.mkdir(exist_ok=True)
    upper.chmod(0o755)
    (place / "work").mkdir()
    out = {{1: b"", 2: b""}}
    def output(stream, data):
        out[stream] += data
    words["layers"] = tuple(map(Path, words.get("layers", [{BASE!r}])))
    words["argv"] = tuple(words["argv"])
    words["mounts"] = tuple(mount(*one[:1], **one[1]) for one in words.get("mounts", ()))
    result = {{}}
    try:
        step = stepping.StepRun(upper=upper, work=place / "work", output=output, **words)
        result["code"] = stepping.run_step(step, starter)
    except stepping.StepFault as fault:
        result["fault"] = str(fault)
    result["out"], result["errors"] = (out[at].decode("utf-8", "replace") for at in (1, 2))
    result["changed"] = changes(str(upper))
    return result
"""
_RUN = (
    _DRIVER
    + f"""
for words in json.loads(os.environ["STEPS"]):
    print({_MARK!r} + json.dumps(run(words)), flush=True)
"""
)


@dataclass(frozen=True)
class Result:
    """What came of a step; ``changed`` has mode, owner and size of what is in its upper folder."""

    out: str
    errors: str
    code: int | None = None
    fault: str = ""
    changed: dict[str, list[int]] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Builder:
    """Builds of one owner, in jobs of an engine whose folder is ``folder``."""

    def __init__(self, runs: Runs, folder: Path, key: str = "ada") -> None:
        self._runs = runs
        self._key = key
        self.cache = Path(Builds(str(folder)).take(key)[0])

    def put_base(self) -> None:
        """Let there be some programs in a layer, as an unpacked image is."""
        (place,) = made_images.userland().layers
        linked = subprocess.run(["cp", "-al", place, self.cache / "base"], check=False)
        if linked.returncode:  # on another file system
            subprocess.run(["cp", "-a", f"{place}/.", self.cache / "base"], check=True)

    def layer(self, name: str) -> Path:
        """A new folder to make a layer of; in jobs it is ``/cache/NAME``."""
        path = self.cache / name
        path.mkdir()
        path.chmod(0o755)
        return path

    async def job(self, script: str, **options: Any) -> Finished:
        """A job that may nest, whose program can ``run`` a step."""
        options.setdefault("memory", 1024 * MIB)
        words = {"nesting": True, "build_cache": self._key, "image": "neuro/builder"}
        return await self._runs.run(
            *(sys.executable, "-c", _DRIVER + script), **{**words, **options}
        )

    async def steps(self, *steps: dict[str, Any], **options: Any) -> list[Result]:
        """Run them one after the other in one job."""
        env = {"STEPS": json.dumps(steps), **options.pop("env", {})}
        done = await self.job(_RUN.removeprefix(_DRIVER), env=env, patience=120.0, **options)
        assert done.code == 0, (done.exited, done.output.decode("utf-8", "replace"))
        found = [line.removeprefix(_MARK) for line in done.lines if line.startswith(_MARK)]
        return [Result(**json.loads(line)) for line in found]

    async def step(self, *argv: str, **words: Any) -> Result:
        """Run one in a job of its own."""
        (result,) = await self.steps({"argv": argv, **words})
        return result


def shell(script: str, **words: Any) -> dict[str, Any]:
    """A step that is a shell's script."""
    return {"argv": ["sh", "-c", script], **words}


def python(program: str, **words: Any) -> dict[str, Any]:
    """A step that is a program in Python."""
    return {"argv": ["python3", "-c", program], **words}


def is_root() -> bool:
    return os.geteuid() == 0
