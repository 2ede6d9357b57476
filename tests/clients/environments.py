"""The reference clients as their users have them: from the package index, nothing changed.

Each version lives in a virtual environment of its own, made once and kept in a cache. The files in
``constraints/`` pin everything it imports to what was current in its day.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

VERSIONS = ("21.12.2", "22.7.1")
# The flow client of each one's day.
FLOW_VERSIONS = {"21.12.2": "21.11.2", "22.7.1": "22.8.1"}

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parent.parent
# Their yarl and multidict have no wheels for Python 3.11, and need no C to work.
_BUILD = {"YARL_NO_EXTENSIONS": "1", "MULTIDICT_NO_EXTENSIONS": "1"}
# The clients import pkg_resources, which later versions of setuptools no longer have.
_SETUPTOOLS = "setuptools==65.7.0"
_STAMP = "complete.json"


class NoSuchPython(Exception):
    """The clients need Python 3.11: some of what they pin does not run on later ones."""


def install(version: str) -> Path:
    """The environment's folder with ``bin/neuro`` and ``bin/neuro-flow`` in it.

    Made at the first call, which takes about 20 seconds. Raises NoSuchPython, RuntimeError with
    what pip said.
    """
    recipe = _recipe(version)
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    folder = _cache() / f"neuro-{version}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not _is_complete(folder):
            # An environment knows its own path, so it is made in place; the stamp comes last.
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, recipe)
            (folder / _STAMP).write_text(json.dumps(str(folder)))
    return folder


def _recipe(version: str) -> dict[str, str]:
    clients = f"neuro-cli=={version} neuro-sdk=={version} neuro-flow=={FLOW_VERSIONS[version]}"
    return {
        "constraints": (_HERE / "constraints" / f"{version}.txt").read_text(),
        "requirements": f"{clients} {_SETUPTOOLS}",
        "python": find_python(),
    }


def _make(folder: Path, recipe: dict[str, str]) -> None:
    constraints = folder / "constraints.txt"
    _call(recipe["python"], "-m", "venv", str(folder))
    constraints.write_text(recipe["constraints"])
    _call(
        str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input",
        "install", "--quiet", "--constraint", str(constraints), *recipe["requirements"].split(),
    )  # fmt: skip


def _call(*command: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **_BUILD}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        output = done.stdout.decode(errors="replace")
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{output}")


def find_python() -> str:
    """The path of a Python 3.11 that can make virtual environments. Raises NoSuchPython."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [
        sys.executable,
        *(str(path) for path in sorted(versions.glob("3.11.*/bin/python3.11"), reverse=True)),
        *(f"{folder}/python3.11" for folder in os.get_exec_path()),
    ]
    probe = "import sys, venv, ensurepip; print(sys.version_info[:2] == (3, 11) and sys.executable)"
    for candidate in candidates:
        with contextlib.suppress(OSError):
            answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True)
            if answer.stdout.strip() not in ("", "False"):
                return answer.stdout.strip()
    raise NoSuchPython("needs Python 3.11 with its venv module (apt: python3.11-venv)")


def _cache() -> Path:
    root = os.environ.get("NEURO_TEST_CACHE")
    return Path(root) if root else _REPOSITORY / ".cache" / "clients"


def _is_complete(folder: Path) -> bool:
    try:
        # A stamp that names another path came with a copied folder: its scripts would not start.
        return bool(json.loads((folder / _STAMP).read_text()) == str(folder))
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
