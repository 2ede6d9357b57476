"""Project quotas: the kernel itself keeps a run's private files below a size.

Where the file system has them switched on (ext4 with the feature ``project``, or XFS, mounted with
``prjquota``) and we are root, a run's folders get a project of their own, which what is made in
them inherits, and the project gets limits. A run beyond them sees EDQUOT, and nobody has to count.
Whatever does not work is no fault: ``disk`` watches as well.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence

_QUOTACTL_FD = 443  # the same number on every architecture
_PROJECTS = 2  # PRJQUOTA
_GET, _SET = 0x800007, 0x800008
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_ATTRIBUTES = struct.Struct("<IIIII8x")  # flags, extent size, extents, project, cow extent size
_QUOTA = struct.Struct("<8QI4x")  # hard and soft limit, use, of blocks and of inodes; times; valid
_LIMITS_ARE_VALID = 1 | 4
_UNIT = 1024  # bytes, of a limit of blocks
_FIRST_PROJECT = 1 << 30  # people number theirs by hand, from 1
_libc = ctypes.CDLL(None, use_errno=True)


class Project:
    """The project of one run, until ``release``."""

    def __init__(self, folder: str, number: int) -> None:
        self._folder = folder
        self.number = number

    def used(self) -> tuple[int, int]:
        """Bytes and inodes that the project has. Raises OSError."""
        quota = _quota(self._folder, self.number)
        return quota[2], quota[5]

    def release(self) -> None:
        """Take the limits away: the number may be another run's next. Raises OSError."""
        _limit(self._folder, self.number, 0, 0)


def hold(folder: str, folders: Sequence[str], *, limit: int, inodes: int) -> Project | None:
    """Let the kernel keep what is made below ``folders`` under ``limit`` bytes and ``inodes``.

    ``folders`` are new, on the file system of ``folder``, and what is in them already does not
    count. None where the file system or our rights do not allow it.
    """
    number = _FIRST_PROJECT | (os.stat(folder).st_ino & (_FIRST_PROJECT - 1))
    try:
        before = _quota(folder, number)
        if before[2] or before[5]:
            return None  # somebody else's
        _limit(folder, number, limit, inodes)
        project = Project(folder, number)
        try:
            wanted = [limit // _UNIT, inodes]
            after = _quota(folder, number)
            if [after[0], after[3]] != wanted:
                raise OSError(errno.ENOSYS, "the limits are not kept")
            for path in folders:
                _assign(path, number)
        except OSError:
            project.release()
            raise
    except OSError:
        return None
    return project


def _limit(folder: str, project: int, limit: int, inodes: int) -> None:
    blocks = limit // _UNIT
    values = (blocks, blocks, 0, inodes, inodes, 0, 0, 0, _LIMITS_ARE_VALID)
    _control(folder, _SET, project, bytearray(_QUOTA.pack(*values)))


def _quota(folder: str, project: int) -> tuple[int, ...]:
    answer = bytearray(_QUOTA.size)
    try:
        _control(folder, _GET, project, answer)
    except FileNotFoundError:
        pass  # XFS, of a project that nothing ever belonged to
    return _QUOTA.unpack(answer)


def _control(folder: str, command: int, project: int, data: bytearray) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = (ctypes.c_char * len(data)).from_buffer(data)
        words = (ctypes.c_ulong(fd), ctypes.c_ulong(command << 8 | _PROJECTS))
        if _libc.syscall(_QUOTACTL_FD, *words, ctypes.c_ulong(project), place) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


def _assign(path: str, project: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        answer = bytearray(_ATTRIBUTES.size)
        fcntl.ioctl(fd, _GET_ATTRIBUTES, answer)
        flags, extent, extents, _, copied = _ATTRIBUTES.unpack(answer)
        wanted = _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, copied)
        fcntl.ioctl(fd, _SET_ATTRIBUTES, wanted)
    finally:
        os.close(fd)
