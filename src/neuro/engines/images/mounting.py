"""Mounting layers above each other, as many as the kernel can."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Sequence

from neuro.engines.sandbox import kernel

# These have the same number on every architecture.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTRIBUTES = {
    kernel.MS_RDONLY: kernel.ATTR_RDONLY,
    kernel.MS_NOSUID: kernel.ATTR_NOSUID,
    kernel.MS_NODEV: kernel.ATTR_NODEV,
    kernel.MS_NOEXEC: kernel.ATTR_NOEXEC,
}
_MOST = 500  # OVL_MAX_STACK
_OTHER_OPTIONS = 256  # bytes of a page that are left for what is no lower folder


def most_lowers(longest: int) -> int:
    """How many lower folders one mount can have, with names of at most ``longest`` bytes.

    Kernels since 6.7 take them one by one; before, all options together have to fit into a page.
    Only a process that may mount learns it.
    """
    if _takes_one_by_one():
        return _MOST
    return min(_MOST, (resource.getpagesize() - _OTHER_OPTIONS) // (longest + 1))


def mount_overlay(
    target: str, lowers: Sequence[str], options: Sequence[str] = (), flags: int = 0
) -> None:
    """Mount an overlay of ``lowers``, the topmost first, with other options such as "userxattr".

    Raises OSError.
    """
    if _takes_one_by_one():
        _mount_one_by_one(target, lowers, options, flags)
    else:
        mount_by_options(target, lowers, options, flags)


def mount_by_options(
    target: str, lowers: Sequence[str], options: Sequence[str] = (), flags: int = 0
) -> None:
    """``mount_overlay`` as every kernel can, with as many lower folders as fit into a page."""
    lower = "lowerdir=" + ":".join(kernel.as_option(name) for name in lowers)
    kernel.mount("overlay", target, "overlay", flags, ",".join((lower, *options)))


def _mount_one_by_one(
    target: str, lowers: Sequence[str], options: Sequence[str], flags: int
) -> None:
    made = _open()
    try:
        for name in lowers:
            _set(made, "lowerdir+", name)
        for option in options:
            key, equals, value = option.partition("=")
            _set(made, key, value if equals else None)
        kernel.call("overlay", _FSCONFIG, made, _CREATE, None, None, 0)
        attributes = sum(value for flag, value in _ATTRIBUTES.items() if flags & flag)
        tree = kernel.call("fsmount", _FSMOUNT, made, _CLOEXEC, attributes)
    finally:
        os.close(made)
    try:
        kernel.attach_at(tree, target)
    finally:
        os.close(tree)


def _open() -> int:
    return kernel.call("fsopen", _FSOPEN, b"overlay", _CLOEXEC)


def _set(made: int, key: str, value: str | None) -> None:
    kind = _SET_FLAG if value is None else _SET_STRING
    given = None if value is None else kernel.as_bytes(value)
    kernel.call(f"overlay's {key}", _FSCONFIG, made, kind, key.encode(), given, 0)


def _takes_one_by_one() -> bool:
    try:
        made = _open()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM, errno.ENODEV):
            return False
        raise
    try:
        _set(made, "lowerdir+", "/")
    except OSError:
        return False
    finally:
        os.close(made)
    return True
