"""COPY and ADD with everything expanded: where each source comes from, and where it goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from neuro.dockerfile import steps, tree
from neuro.dockerfile.globs import BadPattern, compiled, has_wildcards
from neuro.dockerfile.ignore import single_patterns
from neuro.dockerfile.mounts import Origin
from neuro.dockerfile.paths import clean, destination, join, within
from neuro.dockerfile.remote import (
    InvalidRemote,
    is_repository,
    is_url,
    name_of,
    repository,
    scheme,
    with_flags,
    with_plain_scheme,
)
from neuro.dockerfile.scope import Expander
from neuro.dockerfile.tree import Word

_OCTAL = re.compile(r"[0-7]{1,10}")
_HIGHEST_MODE = 0o7777
_CLAUSE = r"[ugoa]*(?:[-+=][rwxXstugo]*)+"
_SYMBOLIC = re.compile(rf"{_CLAUSE}(?:,{_CLAUSE})*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_IDENTITY = re.compile(r"[0-9]+(?::[0-9]+)?")


class CopyReader:
    """One COPY or ADD. ``origin`` is what its paths are in."""

    def __init__(
        self, one: tree.Copy, origin: Origin, expander: Expander, variables: Mapping[str, str]
    ) -> None:
        self._one = one
        self._origin = origin
        self._expander = expander
        self._variables = variables
        self._add = one if isinstance(one, tree.Add) else None
        self._keyword = "ADD" if self._add else "COPY"

    def read(self, folder: str) -> tuple[type[Any], dict[str, Any], str]:
        """The kind of the step, what it is made of, and its line in the history."""
        one = self._one
        chown = self._chown()
        chmod = self._chmod()
        checksum = self._text(self._add.checksum) if self._add else ""
        paths = [self._expander.word(word, self._variables) for word in one.sources]
        contents = [
            steps.InlineFile(heredoc.name, self._expander.heredoc(heredoc, self._variables))
            for heredoc in one.contents
        ]
        if checksum:
            self._check_checksum(paths)
        target = self._expander.word(one.destination, self._variables)
        sources = [
            self._source(path, word, checksum)
            for path, word in zip(paths, one.sources, strict=True)
        ]
        shown = [
            self._keyword,
            *(["--parents"] if one.parents else []),
            *([f"--chown={chown}"] if chown else []),
            *([f"--chmod={chmod}"] if chmod else []),
            *paths,
            *(f"<<{inline.name}" for inline in contents),
            target,
        ]
        values: dict[str, Any] = {
            "sources": (*sources, *contents),
            "destination": destination(folder, target),
            "chown": chown,
            "chmod": chmod,
            # A mode of its own needs the files first, as in the reference.
            "is_linked": one.link and not chmod,
            "parents": one.parents,
            "excludes": self._excludes(),
        }
        if self._add:
            values["unpack"] = self._add.unpack is not False
            values["unpack_remote"] = self._add.unpack is True
            return steps.AddFiles, values, " ".join(shown)
        return steps.CopyFiles, values, " ".join(shown)

    def _excludes(self) -> tuple[str, ...]:
        for word in self._one.excludes:
            try:
                single_patterns([word.text])
            except BadPattern as wrong:
                raise self._expander.fail(str(wrong), word.at) from None
        return tuple(word.text for word in self._one.excludes)

    def _text(self, word: Word | None) -> str:
        return self._expander.word(word, self._variables) if word else ""

    def _chown(self) -> str:
        chown = self._text(self._one.chown)
        if chown and self._one.chown and self._one.link and not _IDENTITY.fullmatch(chown):
            raise self._expander.fail(
                f"With --link, --chown={chown} cannot be looked up.",
                self._one.chown.at,
                "Write numbers: --chown=1000:1000.",
            )
        return chown

    def _chmod(self) -> str:
        chmod = self._text(self._one.chmod)
        if not chmod or not self._one.chmod:
            return ""
        is_octal = _OCTAL.fullmatch(chmod) and int(chmod, 8) <= _HIGHEST_MODE
        if not is_octal and not _SYMBOLIC.fullmatch(chmod):
            raise self._expander.fail(
                f"--chmod={chmod} is not a mode.",
                self._one.chmod.at,
                "Write octal digits up to 7777, or letters: u=rwX,go=rX.",
            )
        return chmod

    def _check_checksum(self, paths: list[str]) -> None:
        assert self._add is not None
        assert self._add.checksum is not None
        if len(paths) != 1:
            raise self._expander.fail(
                "--checksum is for one source.", self._add.checksum.at, "Write an ADD for each."
            )
        if not is_url(paths[0]) and not is_repository(paths[0]):
            raise self._expander.fail(
                "--checksum is for a URL or a repository.", self._add.checksum.at
            )

    def _source(self, path: str, word: Word, checksum: str) -> steps.Source:
        elsewhere = is_url(path) or is_repository(path)
        if elsewhere and self._add is None:
            raise self._expander.fail(f"COPY cannot take '{path}'.", word.at, "Write ADD.")
        if is_url(path):
            if checksum and not _DIGEST.fullmatch(checksum):
                raise self._expander.fail(
                    f"'{checksum}' is not a checksum.", word.at, "Write sha256: and 64 digits."
                )
            try:
                return steps.RemoteFile(with_plain_scheme(path), name_of(path), checksum)
            except InvalidRemote as wrong:
                raise self._expander.fail(f"'{path}': {wrong}", word.at) from None
        if is_repository(path):
            assert self._add is not None
            try:
                return with_flags(
                    repository(with_plain_scheme(path)), checksum, self._add.keep_git_dir
                )
            except InvalidRemote as wrong:
                raise self._expander.fail(f"'{path}': {wrong}", word.at) from None
        if self._add and scheme(path):
            raise self._expander.fail(
                f"ADD cannot take '{path}'.",
                word.at,
                "ADD takes http://, https://, git:// and ssh://.",
            )
        return self._files(path, word)

    def _files(self, path: str, word: Word) -> steps.Files:
        try:
            compiled(path)
        except BadPattern as wrong:
            raise self._expander.fail(str(wrong), word.at, "Escape it: \\[") from None
        if not self._one.parents:
            return steps.Files(self._origin, clean(within("/", path)))
        # What stands before "/./" is left out of the folders that are kept.
        above, pivot, below = path.partition("/./")
        if not pivot:
            above, below = "/", path
        include = within("/", below).removeprefix("/")
        plain = not has_wildcards(above) and not has_wildcards(include)
        required = join("/", above, include) if plain else ""
        return steps.Files(self._origin, clean(within("/", above)), include, required)
