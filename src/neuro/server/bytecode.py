"""Bytecode of the platform's own modules, kept on the disk.

Most starts of Python keep what they compile. Those in a job cannot: a job sees these files and may
not write there. So what only jobs import, such as the builder of images, would be compiled by each
of them anew after an editable installation, or after a `git pull`: 35 modules, 1.1 s a build.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import structlog

import neuro

log = structlog.get_logger("neuro.server")

PACKAGE = Path(neuro.__file__).parent

# Of a file of bytecode: a number of the interpreter's, flags, the time and the size of the source.
_HEADER = struct.Struct("<4sLLL")
# Flags of one that does not go by the time of its source.
_BY_CONTENT = 0b1
_COMPILE = "import compileall, os; os.nice(5); compileall.main()"


async def keep_compiled(package: Path = PACKAGE) -> None:
    """Compile what of ``package`` has no valid bytecode, where it can be written.

    Nothing where this process was told to write none (``PYTHONDONTWRITEBYTECODE``).
    """
    if sys.dont_write_bytecode:
        return
    sources = await asyncio.to_thread(uncompiled, package)
    if not sources:
        return
    # In another process: here it would stop the event loop for seconds. `-f`, as without it a file
    # of another size is not compiled again if its second is the same.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _COMPILE, "-f", "-qq", "-i", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await process.communicate(b"".join(os.fsencode(path) + b"\n" for path in sources))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log.info("compiled modules", count=len(sources), exit_code=process.returncode)


def uncompiled(package: Path) -> list[Path]:
    """The modules without valid bytecode for this interpreter, where it can be written.

    Programs in folders that are no packages are left as they are: those of templates.
    """
    found = []
    for top, folders, names in os.walk(package):
        if "__init__.py" not in names:
            folders.clear()
            continue
        folder = Path(top)
        kept = folder / "__pycache__"
        sources = (folder / name for name in names if name.endswith(".py"))
        stale = [source for source in sources if not _is_compiled(source, kept)]
        if stale and os.access(kept if kept.exists() else folder, os.W_OK | os.X_OK):
            found += stale
    return found


def _is_compiled(source: Path, kept: Path) -> bool:
    try:
        with (kept / f"{source.stem}.{sys.implementation.cache_tag}.pyc").open("rb") as file:
            magic, flags, changed, size = _HEADER.unpack(file.read(_HEADER.size))
        now = source.stat()
    except (OSError, struct.error):
        return False
    if magic != importlib.util.MAGIC_NUMBER:
        return False
    same = (changed, size) == (int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF)
    return bool(flags & _BY_CONTENT) or same
