"""Modes and owners that COPY's flags ask for."""

from __future__ import annotations

import re

from neuro.builder.faults import BuildFault
from neuro.builder.views import View
from neuro.engines.sandbox.image_users import NoUser, User, find

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_USERS_FILE = 4 << 20  # bytes that are read of passwd and group


def changed(mode: int, wanted: str, *, is_folder: bool) -> int:
    """A mode after ``--chmod``: octal digits, or letters as chmod reads them.

    >>> oct(changed(0o644, "755", is_folder=False)), oct(changed(0o600, "go=rX", is_folder=True))
    ('0o755', '0o655')
    """
    if not wanted:
        return mode
    if wanted.isdigit():
        return int(wanted, 8) & 0o7777
    for clause in wanted.split(","):
        found = _CLAUSE.fullmatch(clause)
        assert found is not None, wanted  # the plan has checked it
        who = found[1] if found[1] and "a" not in found[1] else "ugo"
        for operator, letters in _ACTION.findall(found[2]):
            mode = _applied(mode, who, operator, letters, is_folder)
    return mode


def _applied(mode: int, who: str, operator: str, letters: str, is_folder: bool) -> int:
    bits, special = 0, 0
    for letter in letters:
        if letter in _SHIFTS:
            bits |= mode >> _SHIFTS[letter] & 7
        elif letter == "X":
            bits |= 1 if is_folder or mode & 0o111 else 0
        elif letter == "s":
            special |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
        elif letter == "t":
            special |= 0o1000
        else:
            bits |= _BITS[letter]
    mask = sum(7 << _SHIFTS[one] for one in who)
    change = sum(bits << _SHIFTS[one] for one in who) | special
    if operator == "+":
        return mode | change
    if operator == "-":
        return mode & ~change
    return (mode & ~mask) | change


def owner(wanted: str, view: View) -> tuple[int, int] | None:
    """The ids that ``--chown`` or a USER means in a tree; None where nobody is named.

    A number alone is a group's as well. Raises BuildFault.
    """
    if not wanted:
        return None
    name, colon, group = wanted.partition(":")
    if name.isdecimal() and not colon:
        return _ids(f"{name}:{name}", view)
    if name.isdecimal() and group.isdecimal():
        return _ids(wanted, view)
    return _ids(wanted, view)


def user_of(name: str, view: View) -> tuple[int, int]:
    """The ids of a command's user: root's where nobody, or nobody known, is named."""
    try:
        user = find(name, view.read("etc/passwd", _USERS_FILE), view.read("etc/group", _USERS_FILE))
    except NoUser:
        return 0, 0
    return user.uid, user.gid


def _ids(wanted: str, view: View) -> tuple[int, int]:
    names = not wanted.replace(":", "").isdecimal()
    passwd = view.read("etc/passwd", _USERS_FILE) if names else ""
    groups = view.read("etc/group", _USERS_FILE) if names else ""
    try:
        user: User = find(wanted, passwd, groups)
    except NoUser as unknown:
        raise BuildFault(
            f"--chown={wanted}: {unknown}.", "Create the user with RUN first, or write numbers."
        ) from None
    return user.uid, user.gid
