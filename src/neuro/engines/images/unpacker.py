"""The process that unpacks one layer. It sees the layer's folder, and nothing else.

Two processes: the first keeps this user's rights and does nothing with them but give the second
its user namespace. The second is root of that namespace only, in a root made of the folder, without
network or other processes, behind the filter of system calls that jobs have. Only then does it
read the first byte of the archive.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable

from neuro.engines.images import compression, tar
from neuro.engines.images.extracting import Extraction
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.limits import Limits
from neuro.engines.images.records import Recorder
from neuro.engines.sandbox import kernel, seccomp

_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
# Over the layer's own files: their owners, all their modes, and what programs may by their file.
_RIGHTS = (0, 1, 3, 4, 31)  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP
_MEMORY = 2 << 30
_BLOB, _RECORDS, _REPORT = 3, 4, 5  # descriptors, as the server hands them over
OWNERS = 1 << 16  # user ids that a run has on a root server


def main() -> None:
    """Unpack what descriptor 3 holds; see ``unpacking.unpack`` for the rest."""
    kernel.die_with_parent()
    target, limits = sys.argv[1], Limits(**json.loads(sys.argv[2]))
    start = os.pread(_BLOB, 4, 0)  # four bytes: which code is needed has to be loaded now
    make = compression.decompressors(compression.kind_of(start))
    hashlib.sha256()
    fence = seccomp.program()
    user, group = os.geteuid(), os.getegid()
    owners = OWNERS if user == 0 else 1
    ready, mapped = os.pipe()
    pid = kernel.clone(_NAMESPACES)
    if pid == 0:
        try:
            os.close(mapped)
            answer = _answer(lambda: _unpack(ready, target, make, limits, owners, fence))
            os.write(_REPORT, json.dumps(answer).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(0)
    if user != 0:
        kernel.write(f"/proc/{pid}/setgroups", "deny")
        kernel.write(f"/proc/{pid}/uid_map", f"0 {user} 1")
        kernel.write(f"/proc/{pid}/gid_map", f"0 {group} 1")
    else:
        kernel.map_ids(pid, f"0 0 {OWNERS}")
    os.write(mapped, b".")
    _, status = os.waitpid(pid, 0)
    sys.exit(0 if status == 0 else 1)


def _answer(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return work()
    except ImageFault as fault:
        return {"kind": fault.kind.value, "sentence": fault.sentence}
    except MemoryError:
        sentence = "The layer needs too much memory to be unpacked."
        return {"kind": FaultKind.REFUSED.value, "sentence": sentence}
    except OSError as error:
        return {"trouble": error.strerror or str(error)}


def _unpack(
    ready: int,
    target: str,
    make: Callable[[], compression.Decompressor] | None,
    limits: Limits,
    owners: int,
    fence: bytes,
) -> dict[str, object]:
    kernel.die_with_parent()
    os.read(ready, 1)
    os.close(ready)
    with os.fdopen(_RECORDS, "w", encoding="ascii") as file:
        _confine(target, limits)
        seccomp.install(fence)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        extraction = Extraction(root, Recorder(file), limits, owners)
        ahead = compression.Ahead(compression.pieces(_BLOB, make, limits))
        extraction.run(tar.Archive(iter(ahead)))
    return {
        "digest": f"sha256:{ahead.digest}",
        "size": extraction.size,
        "entries": extraction.entries,
    }


def _confine(target: str, limits: Limits) -> None:
    """Make the target the root, and give up all that is not needed to write into it."""
    tree = kernel.copy_tree(target, recursive=False)
    flags = kernel.ATTR_NOSUID | kernel.ATTR_NODEV | kernel.ATTR_NOEXEC
    kernel.set_attributes(tree, flags)
    place = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.attach(tree, place)
    os.fchdir(tree)
    kernel.enter_root()
    os.umask(0)
    kernel.close_between(_REPORT + 1)
    bounds = {
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_FSIZE: limits.size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 1024,
    }
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    kernel.drop_capabilities(_RIGHTS)
