"""BuildKit's own code, built from its Go module once, and asked one question after the other."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_PROGRAM = Path(__file__).parent / "oracle"
_CACHE = Path(__file__).parent.parent.parent / ".cache" / "dockerfile"


def is_there() -> bool:
    return shutil.which("go") is not None


class Refused(Exception):
    """What the reference calls an error. ``line`` is 0 where it names none."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Reference:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [_built()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str, text: str, **more: object) -> Any:
        """Raises Refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"ask": question, "text": text, **more}),
            file=self._process.stdin,
            flush=True,
        )
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"], answer["line"])
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def _built() -> Path:
    sources = sorted(_PROGRAM.iterdir())
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = _CACHE / version
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            made = program.with_suffix(".being-made")
            subprocess.run(["go", "build", "-trimpath", "-o", made, "."], cwd=_PROGRAM, check=True)
            for older in set(_CACHE.iterdir()) - {made, _CACHE / "lock"}:
                older.unlink()
            os.replace(made, program)
    return program
