"""Unpacking a layer, by a process that sees only the folder in which the layer goes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import threading
from dataclasses import asdict, dataclass

from neuro.engines.images import records
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.places import open_folder
from neuro.engines.sandbox.probing import PACKAGE_ROOT, python

_OPAQUE = "trusted.overlay.opaque"
_START = (
    "import sys; sys.path[:0] = {paths!r}; from neuro.engines.images.unpacker import main; main()"
)
_LIBRARIES = ("isal", "backports.zstd")


@dataclass(frozen=True)
class Unpacked:
    """What a layer turned out to be: the digest of its archive (diff id), and how large."""

    digest: str
    size: int
    entries: int


class Stopped(Exception):
    """An unpacking was stopped before its end."""


class Unpacking:
    """One layer that is being unpacked from the open file ``blob``, from its beginning.

    ``target`` is an empty folder, ``beside`` the file that gets what the files cannot say of
    themselves (``records``). How far it is, is the position in ``blob``.
    """

    def __init__(self, blob: int, target: str, beside: str, limits: Limits) -> None:
        self._target, self._beside = target, beside
        self._stopped = threading.Event()
        os.lseek(blob, 0, os.SEEK_SET)
        records_fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._report, told = os.pipe()
        try:
            self._process = _start((blob, records_fd, told), target, limits)
        except BaseException:
            os.close(self._report)
            raise
        finally:
            os.close(records_fd)
            os.close(told)

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped.set()
        self._process.kill()

    def wait(self) -> Unpacked:
        """Raises ImageFault where the layer is not taken, Stopped, and OSError for our own trouble.

        What is in the target then is of no use.
        """
        with os.fdopen(self._report, "rb") as report:
            told = report.read()
        errors = self._process.communicate()[1]
        if self._stopped.is_set():
            raise Stopped
        if not told:
            raise OSError(0, _end(self._process.returncode, errors))
        answer = json.loads(told)
        if "trouble" in answer:
            raise OSError(0, f"the layer cannot be unpacked: {answer['trouble']}")
        if "kind" in answer:
            raise ImageFault(FaultKind(answer["kind"]), answer["sentence"])
        if os.geteuid() == 0:
            _mark_opaque(self._target, self._beside)
        return Unpacked(answer["digest"], answer["size"], answer["entries"])


def _start(passed: tuple[int, int, int], target: str, limits: Limits) -> subprocess.Popen[bytes]:
    """Start the unpacker, with these as its descriptors 3, 4 and 5."""
    code = _START.format(paths=_paths())
    # A shell would be the other way to place descriptors: dup2 in this process could hit others'.
    code = f"import os; [os.dup2(fd, at) for fd, at in {_placed(passed)!r}]; {code}"
    return subprocess.Popen(
        [*python(), "-c", code, target, json.dumps(asdict(limits))],
        pass_fds=passed,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
    )


def _placed(passed: tuple[int, ...]) -> list[tuple[int, int]]:
    """Pairs for dup2, by way of high numbers so that none is overwritten before it is copied."""
    high = [(fd, 900 + at) for at, fd in enumerate(passed)]
    return [*high, *((to, 3 + at) for at, (_, to) in enumerate(high))]


def _paths() -> list[str]:
    """Where Python finds this package and the decompressors: the unpacker has no site packages."""
    found = {PACKAGE_ROOT: None}
    for name in _LIBRARIES:
        parent = name.partition(".")[0]
        spec = importlib.util.find_spec(parent)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            found[os.path.dirname(place)] = None
    return list(found)


def _end(code: int, errors: bytes) -> str:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    if lines:
        return f"the unpacker of layers failed: {lines[-1]}"
    if code < 0:
        return f"the unpacker of layers was killed ({signal.Signals(-code).name})"
    return "the unpacker of layers was killed"


def _mark_opaque(target: str, beside: str) -> None:
    """Say it in the way of mounts that root makes, too; the unpacker has no right to.

    The paths were written by a process that read a stranger's archive: none leads out.
    """
    with open(beside, encoding="ascii") as file:
        marked = [path for path, one in records.read(file).items() if one.opaque]
    root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in marked:
            folder = open_folder(root, path)
            try:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
                try:
                    os.setxattr(fd, _OPAQUE, b"y")
                finally:
                    os.close(fd)
            finally:
                os.close(folder)
    finally:
        os.close(root)
