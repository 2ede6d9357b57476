"""An image for tests, made of a few programs of this machine: no registry can be reached here.

``python -m tests.engines.docker_image`` writes it to its standard output as a tar.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

PROGRAMS = (
    "sh bash cat ls echo printf env sleep seq head tail tr cut sort wc grep sed awk find stat df"
    " date id touch mkdir rm cp mv ln chmod chown chroot mknod mount umount hostname ps tty stty"
    " true false test setsid nohup getent pwd kill dd tee uname nproc timeout basename dirname"
)
FOLDERS = (
    "tmp var/tmp root home srv mnt media opt run proc sys dev etc usr/local/bin usr/lib var/lib"
)
PACKAGES = ("msgspec",)  # of Python, which jobs find in the machine's own userland elsewhere
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_LEFT_OUT = {"site-packages", "test", "tests", "__pycache__", "idlelib", "tkinter", "ensurepip"}


def write(out: IO[bytes], programs: Sequence[str] = (), *, python: bool = True) -> None:
    """The whole image, or one of these programs alone."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder in FOLDERS.split():
            _folder(tar, folder)
        for name in ("bin", "sbin", "lib", "lib64"):
            _link(tar, name, f"usr/{name}")
        for name, text in FILES.items():
            _bytes(tar, name, text.encode())
        found = [
            path
            for name in programs or PROGRAMS.split()
            if (path := shutil.which(name, path=os.defpath))
        ]
        files = {_place(path): os.path.realpath(path) for path in found}
        loaded = _python(tar) if python else []
        for path in _libraries([*files.values(), *loaded]):
            files[_place(path)] = os.path.realpath(path)
        for place, path in sorted(files.items()):
            tar.add(path, place, filter=_owned)


def _python(tar: tarfile.TarFile) -> list[str]:
    """Add Python; what of it needs libraries."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = str(base / "bin" / version)
    tar.add(os.path.realpath(program), f"usr/local/bin/{version}", filter=_owned)
    for name in ("python", "python3"):
        _link(tar, f"usr/local/bin/{name}", version)
    stdlib = Path(sysconfig.get_path("stdlib"))
    home = f"usr/local/lib/{version}"

    def chosen(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = info.name.removeprefix(home).split("/")
        left_out = _LEFT_OUT.intersection(parts) or any(p.startswith("config-") for p in parts)
        return None if left_out else _owned(info)

    tar.add(stdlib, home, filter=chosen)
    packages = Path(sysconfig.get_path("platlib"))
    _folder(tar, f"{home}/site-packages")
    for name in PACKAGES:
        tar.add(packages / name, f"{home}/site-packages/{name}", filter=_owned)
    loaded = [*stdlib.glob("lib-dynload/*.so"), *packages.glob("msgspec/*.so")]
    return [program, *map(str, loaded)]


def _libraries(programs: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        found.update(re.findall(r"(/\S+) \(0x", done.stdout))
    return found


def _place(path: str) -> str:
    """Where a file of this machine is in the image, where /lib is a link to /usr/lib."""
    place = path.lstrip("/")
    if place.startswith(("usr/", "bin/", "sbin/", "lib/", "lib64/")):
        return place if place.startswith("usr/") else f"usr/{place}"
    return f"usr/lib/{os.path.basename(place)}"  # of a Python that is not the system's


def _owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def _folder(tar: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o1777 if name.endswith("tmp") else 0o755
    tar.addfile(info)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.SYMTYPE
    info.linkname = target
    tar.addfile(info)


def _bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    tar.addfile(info, io.BytesIO(content))


if __name__ == "__main__":
    write(sys.stdout.buffer)
