"""Paths inside of an image or of a context, by their text alone."""

from __future__ import annotations

import posixpath


def clean(path: str) -> str:
    """The shortest path that means the same, as Go's ``path.Clean``.

    >>> clean("//a/./b/../c/"), clean("")
    ('/a/c', '.')
    """
    cleaned = posixpath.normpath(path)
    # POSIX lets two slashes at the beginning mean something else.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def join(*parts: str) -> str:
    """The parts that are not empty, as one clean path; a later one never starts at the root.

    >>> join("/app", "/lib"), join("a", "")
    ('/app/lib', 'a')
    """
    kept = [part for part in parts if part]
    return clean("/".join(kept)) if kept else ""


def base(path: str) -> str:
    """The last part of a path, without the slashes behind it."""
    return clean(path).rpartition("/")[2]


def within(folder: str, path: str) -> str:
    """An absolute path stays as it is; a relative one begins in the folder.

    >>> within("/app", "lib"), within("/app", "/x/../y")
    ('/app/lib', '/x/../y')
    """
    if path.startswith("/"):
        return path
    return join("/", folder, path)


def destination(folder: str, path: str) -> str:
    """Where a COPY goes: a clean path, and a slash at the end is kept, as it means a folder.

    >>> destination("/app", "."), destination("/app", "/x/../y/"), destination("/app", "f")
    ('/app/', '/y/', '/app/f')
    """
    target = clean(within(folder, path))
    is_folder = path in ("", ".") or path.endswith(("/", "/."))
    return target + "/" if is_folder and not target.endswith("/") else target
