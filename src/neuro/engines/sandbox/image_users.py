"""Which user of an image a command runs as, by the image's own passwd and group.

Docker's rules. No library of the machine's or of the image's has a part in it, and what the two
files are is up to whoever made the image: anything but a plain file counts as none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from neuro.engines.sandbox import kernel

MOST = 65_535  # the highest id that a run has
_SIZE = 4 << 20  # bytes that are read of a file
_DIGITS = 10  # of an id


class NoUser(ValueError):
    """The image has no such user or group; the sentence is for the job's owner."""


class User:
    """Ids within the run, and the home folder."""

    # A named tuple would bring ``typing``, which costs every job memory.
    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(
        self, uid: int = 0, gid: int = 0, groups: tuple[int, ...] = (), home: str = "/"
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def look_up(name: str) -> User:
    """The user that an image names, by the files below our root. Raises NoUser."""
    return find(name, _read("/etc/passwd"), _read("/etc/group"))


def find(name: str, passwd: str, group: str) -> User:
    """The user called ``name``: a name or a number, perhaps with a group behind a colon.

    Raises NoUser.

    >>> passwd = "root:x:0:0::/root:/bin/sh\\napp:x:1000:100::/home/app:/bin/sh"
    >>> user = find("app", passwd, "users:x:100:\\nvideo:x:44:other,app")
    >>> user.uid, user.gid, user.groups, user.home
    (1000, 100, (44,), '/home/app')
    >>> user = find("7:users", passwd, "users:x:100:")
    >>> user.uid, user.gid, user.groups, user.home
    (7, 100, (), '/')
    """
    asked, _, asked_group = name.partition(":")
    known = _user(asked or "0", passwd)
    if known is None and asked and _number(asked) is None:
        raise NoUser(f"the image has no user {asked!r}: its /etc/passwd does not name one")
    login, user = known or ("", User(uid=_number(asked) or 0))
    if asked_group:
        user = User(user.uid, _group(asked_group, group), (), user.home)
    elif login:
        groups = tuple(gid for _, gid, members in _groups(group) if login in members)
        user = User(user.uid, user.gid, groups, user.home)
    for number in (user.uid, user.gid, *user.groups):
        if number > MOST:
            raise NoUser(f"a run has no user or group {number}: {MOST} is the highest")
    return user


def _user(asked: str, passwd: str) -> tuple[str, User] | None:
    for fields in _lines(passwd, 6):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and asked in (fields[0], str(uid)):
            return fields[0], User(uid, gid, (), fields[5] or "/")
    return None


def _group(asked: str, group: str) -> int:
    for name, gid, _ in _groups(group):
        if asked in (name, str(gid)):
            return gid
    number = _number(asked)
    if number is not None:
        return number
    raise NoUser(f"the image has no group {asked!r}: its /etc/group does not name one")


def _groups(group: str) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _lines(group, 3):
        gid = _number(fields[2])
        if gid is not None:
            yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def _lines(text: str, least: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(":")]
        if len(fields) >= least and fields[0]:
            yield fields


def _read(path: str) -> str:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = kernel.open_below(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return os.read(file, _SIZE).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(file)
