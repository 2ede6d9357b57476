"""The GPU driver's programs and libraries of this machine, for runs whose image has none.

They belong to the kernel's driver, so no image can bring the right ones. NVIDIA's own images look
for them in ``/usr/local/nvidia``; others are told by variables.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from shutil import which

_PLACE = "/usr/local/nvidia"
# What NVIDIA's driver consists of outside of the kernel, without what only a screen needs.
_LIBRARY = re.compile(
    r"lib(cuda|cudadebugger|nvcuvid|nvoptix|vdpau_nvidia"
    r"|nvidia-(ml|cfg|ptxjitcompiler|opencl|nvvm\d*|compiler|gpucomp|allocator|ngx|encode"
    r"|opticalflow|pkcs11|pkcs11-openssl3|sandboxutils|fatbinaryloader|rtcore|nscq))\.so(\.\d+)*"
)
_PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control", "nvidia-cuda-mps-server")
_LINE = re.compile(r"\s*(\S+) \(([^)]*)\) => (/.+)")
_ENTRIES = 200


def driver_files() -> tuple[tuple[str, str], ...]:
    """Each file of the driver here, and where it is to be in a run; none where there is no driver.

    Blocks for some milliseconds. Raises OSError where this machine has no linker's cache.
    """
    programs = ((name, which(name)) for name in _PROGRAMS)
    found = {f"{_PLACE}/bin/{name}": os.path.realpath(path) for name, path in programs if path}
    for name, path in libraries(_cache()).items():
        found[f"{_PLACE}/lib64/{name}"] = os.path.realpath(path)
    there = ((path, target) for target, path in found.items() if os.path.isfile(path))
    return tuple(there)[:_ENTRIES]


def libraries(cache: str) -> dict[str, str]:
    """The driver's libraries by the names that programs load, in what ``ldconfig -p`` says.

    >>> libraries('''
    ...     libcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1
    ...     libcuda.so.1 (libc6) => /lib/i386-linux-gnu/libcuda.so.1
    ...     libcudart.so.12 (libc6,x86-64) => /usr/local/cuda/lib64/libcudart.so.12
    ... ''')
    {'libcuda.so.1': '/lib/x86_64-linux-gnu/libcuda.so.1'}
    """
    found: dict[str, str] = {}
    for line in cache.splitlines():
        entry = _LINE.fullmatch(line)
        # Those of 32 bits have no word for it.
        if entry and _LIBRARY.fullmatch(entry[1]) and "," in entry[2]:
            found.setdefault(entry[1], entry[3])
    return found


def with_driver(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a run that has the driver's files.

    >>> with_driver({"PATH": "/bin"})
    {'PATH': '/bin:/usr/local/nvidia/bin', 'LD_LIBRARY_PATH': '/usr/local/nvidia/lib64'}
    """
    given = dict(environment)
    for name, place in (("PATH", "bin"), ("LD_LIBRARY_PATH", "lib64")):
        parts = [part for part in given.get(name, "").split(":") if part]
        if name == "PATH" and not parts:
            continue  # the usual one is known later
        ours = f"{_PLACE}/{place}"
        given[name] = ":".join(parts if ours in parts else [*parts, ours])
    return given


def _cache() -> str:
    program = which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin") or "/sbin/ldconfig"
    done = subprocess.run([program, "-p"], capture_output=True, timeout=20, check=False)
    return done.stdout.decode("utf-8", "replace")
