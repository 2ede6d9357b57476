"""What ADD takes from elsewhere: URLs and repositories of git."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import msgspec

from neuro.dockerfile.steps import GitTree
from neuro.dockerfile.values import boolean

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SSH = re.compile(r"[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:[^?#]*")
_TEXTS = ("ref", "tag", "branch", "subdir", "checksum", "commit", "mtime")
_BOOLEANS = ("keep-git-dir", "submodules", "fetch-by-commit")


class InvalidRemote(ValueError):
    """A URL of a repository that says something impossible."""


def scheme(text: str) -> str:
    """The scheme of a source, in lower case; empty for a path.

    >>> scheme("HTTP://example.com/a"), scheme("a/b")
    ('http', '')
    """
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def with_plain_scheme(text: str) -> str:
    """A URL whose scheme is in lower case: other programs compare it so."""
    return scheme(text) + text[len(scheme(text)) :]


def is_url(text: str) -> bool:
    """Whether a source is a file behind a URL."""
    return scheme(text) in ("http", "https") and not is_repository(text)


def is_repository(text: str) -> bool:
    """Whether a source is a repository: by its scheme, or by ``.git`` at its end."""
    place = re.split(r"[?#]", text, maxsplit=1)[0]
    if scheme(text) in ("http", "https"):
        return place.endswith(".git") and "/" in place.partition("://")[2]
    return scheme(text) in ("git", "ssh") or _SSH.match(text) is not None


def name_of(url: str) -> str:
    """The name of the file that a URL holds.

    >>> name_of("https://example.com/a/b.tar?x=1"), name_of("https://example.com")
    ('b.tar', '__unnamed__')

    Raises InvalidRemote.
    """
    try:
        path = urlsplit(url).path
    except ValueError as wrong:
        raise InvalidRemote(f"It is not a URL ({wrong}).") from None
    return path.rstrip("/").rpartition("/")[2] or "__unnamed__"


def repository(text: str) -> GitTree:
    """A repository of its URL, with ``#ref:folder`` or ``?branch=..&subdir=..`` behind it.

    Raises InvalidRemote.
    """
    place, _, fragment = text.partition("#")
    place, _, query = place.partition("?")
    ref, _, folder = fragment.partition(":")
    asked = _asked(query)
    for key, before in (("tag", "refs/tags/"), ("branch", "refs/heads/"), ("ref", "")):
        if value := asked.get(key):
            given = before + value.removeprefix(before)
            if ref not in ("", given):
                raise InvalidRemote(f"It names two commits: '{ref}' and '{given}'.")
            ref = given
    subdir = asked.get("subdir", folder)
    if folder and subdir != folder:
        raise InvalidRemote(f"It names two folders: '{folder}' and '{subdir}'.")
    return GitTree(
        place,
        ref,
        subdir,
        asked.get("checksum") or asked.get("commit", ""),
        _yes(asked, "keep-git-dir", False),
        _yes(asked, "submodules", True),
    )


def with_flags(tree: GitTree, checksum: str, keep_git_dir: bool | None) -> GitTree:
    """The repository, with what ADD's flags say of it. Raises InvalidRemote."""
    if checksum and tree.checksum and checksum != tree.checksum:
        raise InvalidRemote(f"It names two commits: '{checksum}' and '{tree.checksum}'.")
    return msgspec.structs.replace(
        tree,
        checksum=checksum or tree.checksum,
        keep_git_dir=tree.keep_git_dir if keep_git_dir is None else keep_git_dir,
    )


def _asked(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, values in parse_qs(query, keep_blank_values=True).items():
        if key not in (*_TEXTS, *_BOOLEANS):
            raise InvalidRemote(f"'{key}' is not known behind a '?'.")
        if len(values) > 1:
            raise InvalidRemote(f"'{key}' is given twice.")
        if not values[0] and key not in _BOOLEANS:
            raise InvalidRemote(f"'{key}' has no value.")
        found[key] = values[0] or "true"
    return found


def _yes(asked: dict[str, str], key: str, default: bool) -> bool:
    value = boolean(asked[key]) if key in asked else default
    if value is None:
        raise InvalidRemote(f"'{key}' is either true or false.")
    return value
