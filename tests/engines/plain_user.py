"""Run the engine tests as a user without rights, from any checkout.

The checkout, the virtual environment and even the interpreter may lie where only root can read. So
what the tests need is copied to a folder of their own: the code, the distributions by their own
lists of files, and the interpreter where this user could not execute it.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

UID = 65534
CHECKOUT = Path(__file__).parents[2]
DISTRIBUTIONS = (
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    "msgspec",
    "hypothesis",
    "psutil",
    "isal",
    "backports-zstd",
    "pyyaml",
)
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip")


def as_plain_user(
    command: list[str], place: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` as that user in the copied checkout."""
    return subprocess.run(
        command,
        cwd=place / "checkout",
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "LANG": "C.UTF-8",
            # A copy of the interpreter looks for its library where that was built, then among the
            # system's, which may be of another version.
            "LD_LIBRARY_PATH": str(place / "python" / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        user=UID,
        group=UID,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def prepare(place: Path) -> str:
    """Copy everything below ``place``; the interpreter to use."""
    place.chmod(0o755)
    for name in ("tmp", "home"):
        (place / name).mkdir()
        os.chown(place / name, UID, UID)
    # With their bytecode, as this user can keep none and hundreds of processes would compile anew;
    # without that of tests, whose failures would name files that this user cannot read.
    ignore = shutil.ignore_patterns("*-pytest-*.pyc", "*.pyc.*")
    shutil.copytree(CHECKOUT / "tests", place / "checkout" / "tests", ignore=ignore)
    shutil.copy(CHECKOUT / "pyproject.toml", place / "checkout")
    site = place / "env" / "lib" / _VERSION / "site-packages"
    site.mkdir(parents=True)
    shutil.copytree(CHECKOUT / "src" / "neuro", site / "neuro", ignore=ignore)
    for name in _with_dependencies(DISTRIBUTIONS):
        _copy_distribution(name, site)
    interpreter = _interpreter(place)
    for folder in (site, place / "checkout" / "tests"):  # what has none yet
        compileall.compile_dir(folder, quiet=2, rx=re.compile(r"/test_\w+\.py$"))
    (place / "env" / "bin").mkdir()
    (place / "env" / "bin" / "python").symlink_to(interpreter)
    (place / "env" / "bin" / _VERSION).symlink_to("python")
    (place / "env" / "pyvenv.cfg").write_text(f"home = {interpreter.parent}\n")
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", str(place / "env")], check=True)
    return str(place / "env" / "bin" / "python")


def _with_dependencies(names: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another version of Python, or not needed for these tests
        found[name] = None
        for line in required:
            if "extra ==" not in line and (word := re.match(r"[\w.-]+", line)):
                waiting.append(word[0])
    return list(found)


def _copy_distribution(name: str, site: Path) -> None:
    distribution = metadata.distribution(name)
    for file in distribution.files or []:
        if ".." in file.parts:
            continue  # scripts, which are not needed
        source = Path(str(distribution.locate_file(file)))
        target = site / file
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)  # bytecode is that of a file of this age


def _interpreter(place: Path) -> Path:
    """This interpreter if the user can execute it, a copy of it otherwise."""
    mine = Path(sys.executable).resolve()
    if _works(mine):
        return mine
    home = place / "python"
    (home / "bin").mkdir(parents=True)
    shutil.copy(mine, home / "bin" / _VERSION)
    library = Path(sysconfig.get_path("stdlib")).resolve()
    # With its bytecode: every engine starts interpreters that could not keep what they compile.
    ignore = shutil.ignore_patterns(*_LEFT_OUT, "config-*")
    shutil.copytree(library, home / "lib" / _VERSION, ignore=ignore)
    for shared in library.parent.glob(f"lib{_VERSION}*.so*"):
        shutil.copy(shared, home / "lib")
    (home / "bin" / _VERSION).chmod(0o755)
    return home / "bin" / _VERSION


def _works(interpreter: Path) -> bool:
    try:
        return (
            subprocess.run(
                [interpreter, "-I", "-c", "import json, ctypes"],
                user=UID,
                group=UID,
                extra_groups=[],
                cwd="/",
                env={},
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    except OSError:
        return False
