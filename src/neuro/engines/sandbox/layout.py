"""Where everything lies below the engine's folder, and how to reach sockets at long paths.

::

    installation          this installation's id and its jobs' network
    zygote.lock           held by the one live zygote
    land/                 what jobs see of ours (see userland): hidden/ and given/ are layers over
                          the machine's folders, template/ lies below every run's root
    stage/                where the zygote and the second process of each run mount what its root
                          is made of (see stage)
    trash/                what is being deleted
    builds/<key>/         what builds of one owner keep (see builds), beside <key>.lock
    berths/<name>/        private layers of runs that are not asked for yet
    jobs/<id>/output/     <start offset>.log, <start offset>.idx
    jobs/<id>/runs/<n>/   socket, state, exit (or the room for it), root/, layers/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox.ending import ExitRecord
from neuro.engines.sandbox.removal import remove_tree as remove_tree

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

ZYGOTE_LOCK = "zygote.lock"
SOCKET = "socket"
STATE = "state"
_GET_FLAGS, _SET_FLAGS, _TOP_FOLDER = 0x80086601, 0x40086602, 0x00020000
EXIT = "exit"
_ROOM = "exit.room"
FULL_SECONDS = 0.5  # between two tries to write an exit record to a full disk
_RECORD_SIZE = 4096  # bytes; a longer message is cut


def is_job_id(name: str) -> bool:
    """Whether ``name`` can be a job's."""
    return _JOB_ID.fullmatch(name) is not None


def check_job_id(job_id: str) -> str:
    """``job_id`` if it can be a folder's name; ValueError otherwise."""
    if not is_job_id(job_id):
        raise ValueError(f"{job_id!r} cannot be a job's id")
    return job_id


def job_folder(folder: str, job_id: str) -> str:
    """The job's folder."""
    return f"{folder}/jobs/{check_job_id(job_id)}"


def output_folder(folder: str, job_id: str) -> str:
    """The folder of the job's log."""
    return job_folder(folder, job_id) + "/output"


def run_folder(folder: str, job_id: str, run: int) -> str:
    """The folder of one run."""
    return f"{job_folder(folder, job_id)}/runs/{run:d}"


def berth_folder(folder: str, name: str) -> str:
    """Where the private layers of the next run wait for it."""
    return f"{folder}/berths/{name}"


def spread(folder: str) -> None:
    """Ask ext4 to put each folder made in ``folder`` far from the others (``chattr +T``).

    It looks for an inode that was not freed in the last minutes, near the parent's: where hundreds
    of runs made and deleted theirs side by side, that was a third of all the work of a short run.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8)), sys.byteorder)
        fcntl.ioctl(fd, _SET_FLAGS, (flags | _TOP_FOLDER).to_bytes(8, sys.byteorder))
    except OSError:
        pass  # another file system, which has no such flag
    finally:
        os.close(fd)


def berth_of(state: Mapping[str, Any], job_id: str, run: int) -> str:
    """The name of the berth, and of the control group, of a run that told ``state``."""
    berth = state.get("berth")
    if isinstance(berth, str) and is_job_id(berth):
        return berth
    return f"{job_id}.{run}"  # what versions without berths called it


def write_record(path: str, value: Any) -> None:
    """Write JSON so that a reader sees all of it or the file before it."""
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.rename(temporary, path)


def keep_room(folder: str) -> None:
    """Take the disk space that the exit record of the run in ``folder`` will need.

    Without it a run that ends on a full disk could not say so. Raises OSError.
    """
    fd = os.open(f"{folder}/{_ROOM}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_size < _RECORD_SIZE and os.write(fd, bytes(_RECORD_SIZE)) < _RECORD_SIZE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def remove_claim(folder: str) -> None:
    """Delete the folder of a run that nobody was given; nothing if it is not there.

    Needs no descriptor: that there are none left is the usual reason. Raises OSError.
    """
    for name in (SOCKET, STATE, _ROOM):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(folder)


def write_exit(folder: str, record: ExitRecord) -> None:
    """Write the exit record of the run in ``folder``, into the room that was kept for it.

    A reader sees all of it or none. Raises OSError: without kept room for a full disk, and
    FileNotFoundError where the run's folder is gone.
    """
    text = json.dumps(record.as_json()).encode()
    if len(text) > _RECORD_SIZE and record.message is not None:
        shortened = replace(record, message=record.message[:400] + " ...")
        text = json.dumps(shortened.as_json()).encode()
    fd = os.open(f"{folder}/{_ROOM}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.write(fd, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(fd, len(text))
    finally:
        os.close(fd)
    os.rename(f"{folder}/{_ROOM}", f"{folder}/{EXIT}")


def read_exit(folder: str) -> ExitRecord | None:
    """The exit record of the run in ``folder``; None if it is absent or damaged.

    Raises OSError where it may be there and cannot be read: such a run must not be taken for lost.
    """
    return ExitRecord.from_json(read_record(f"{folder}/{EXIT}"))


def add_state(path: str, value: Any) -> None:
    """Make ``value`` the newest state at ``path``; a reader sees it whole or the one before it.

    States are lines of one file. A file renamed into place each time would cost an inode, and ext4
    searches the longer the more inodes were freed lately. Raises OSError.
    """
    text = json.dumps(value).encode() + b"\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.write(fd, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def read_state(path: str) -> dict[str, Any] | None:
    """The newest state at ``path``; None if there is none, or it cannot be read.

    Raises OSError where it can be read later.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    return next((value for line in reversed(lines) if (value := _object(line)) is not None), None)


def read_record(path: str) -> dict[str, Any] | None:
    """The JSON object at ``path``; None if it is absent or damaged.

    Raises OSError where it may be there and cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return _object(file.read())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class ShortPath:
    """A path below ``folder`` that fits into the 108 bytes of a unix socket's address."""

    def __init__(self, folder: str, name: str) -> None:
        self._fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = name

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}/{self._name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def listen(folder: str) -> socket.socket:
    """A unix socket that listens at ``folder``/socket. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with ShortPath(folder, SOCKET) as path:
            listener.bind(path)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def connect(folder: str) -> socket.socket:
    """A connection to ``folder``/socket. Raises OSError where nobody listens."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with ShortPath(folder, SOCKET) as path:
            client.connect(path)
    except OSError:
        client.close()
        raise
    return client
