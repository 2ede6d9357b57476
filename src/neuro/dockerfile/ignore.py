"""``.dockerignore``: which files of a context are left out of a build.

Later lines win over earlier ones, and what is decided for a folder holds for what is in it until a
line says otherwise. Runs of lines of one kind are one regular expression, so that a file costs a
few matches however long the list is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from neuro.dockerfile.globs import BadPattern, compiled, has_wildcards, ignore_regex
from neuro.dockerfile.lines import SPACES
from neuro.dockerfile.paths import clean
from neuro.dockerfile.tree import DockerfileError
from neuro.domain.problems import Problem, Source

MAX_PATTERNS = 10_000


class Pattern(msgspec.Struct, frozen=True):
    """One line. ``keeps``: it begins with ``!``, and takes files back in."""

    text: str
    keeps: bool


def read_patterns(text: str, name: str = ".dockerignore") -> tuple[Pattern, ...]:
    """The patterns of a file. Raises DockerfileError with all lines that are wrong."""
    source = Source(name, text)
    problems: list[Problem] = []
    found: list[Pattern] = []
    start = 0
    for line in text.removeprefix("\ufeff").split("\n"):
        at = source.position(min(start, len(text)))
        start += len(line) + 1
        if line.startswith("#") or not (pattern := line.strip(SPACES)):
            continue
        keeps = pattern.startswith("!")
        pattern = pattern[keeps:].strip(SPACES)
        if not pattern:
            problems.append(Problem("Nothing stands behind the '!'.", at, "Write !PATTERN."))
            continue
        pattern = clean(pattern)
        pattern = pattern[1:] if pattern.startswith("/") and len(pattern) > 1 else pattern
        try:
            compiled(pattern)
            ignore_regex(pattern)
        except BadPattern as wrong:
            problems.append(Problem(str(wrong), at))
            continue
        found.append(Pattern(pattern, keeps))
        if len(found) > MAX_PATTERNS:
            problems.append(Problem(f"There are more than {MAX_PATTERNS:,} patterns.", at))
            break
    if problems:
        raise DockerfileError(problems)
    return tuple(found)


def single_patterns(texts: Iterable[str]) -> tuple[Pattern, ...]:
    """The patterns of ``--exclude`` and ``--parents``. Raises BadPattern."""
    found = []
    for text in texts:
        pattern = text.strip(SPACES)
        if not pattern:
            continue
        pattern = clean(pattern)
        keeps = pattern.startswith("!")
        if pattern == "!":
            raise BadPattern("Nothing stands behind the '!'.")
        compiled(pattern[keeps:])
        ignore_regex(pattern[keeps:])
        found.append(Pattern(pattern[keeps:], keeps))
    return tuple(found)


class Verdict(msgspec.Struct, frozen=True):
    """What the lines say of a path. ``groups`` is for what lies below it."""

    ignored: bool
    groups: int = 0


TOP = Verdict(False)


class IgnoreMatcher:
    """Asks about one path after the other, from a folder to what is in it."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._groups: list[_Group] = []
        for pattern in patterns:
            if not self._groups or self._groups[-1].keeps != pattern.keeps:
                self._groups.append(_Group(pattern.keeps))
            self._groups[-1].add(pattern.text)
        for group in self._groups:
            group.finish()

    def verdict(self, path: str, folder: Verdict = TOP) -> Verdict:
        """Of a path, given the verdict of the folder that it is in."""
        ignored, groups = False, 0
        for index, group in enumerate(self._groups):
            bit = 1 << index
            if not folder.groups & bit and (group.keeps != ignored or not group.matches(path)):
                continue
            groups |= bit
            ignored = not group.keeps
        return Verdict(ignored, groups)

    def ignores(self, path: str) -> bool:
        """Whether a path is left out, by itself or by a folder that it is in."""
        verdict = TOP
        end = -1
        while end < len(path):
            end = path.find("/", end + 1)
            end = len(path) if end < 0 else end
            verdict = self.verdict(path[:end], verdict)
        return verdict.ignored

    def may_keep_below(self, folder: str, verdict: Verdict) -> bool:
        """Whether anything in a folder can be part of the build: else nobody needs to look."""
        if not verdict.ignored:
            return True
        decided = max(
            index
            for index, group in enumerate(self._groups)
            if verdict.groups & 1 << index and not group.keeps
        )
        return any(
            group.keeps and group.reaches_below(folder) for group in self._groups[decided + 1 :]
        )


class _Group:
    """Patterns of one kind that follow one another."""

    def __init__(self, keeps: bool) -> None:
        self.keeps = keeps
        self._texts: list[str] = []
        self._exact: set[str] = set()
        self._regex: re.Pattern[str] | None = None

    def add(self, text: str) -> None:
        self._texts.append(text)

    def finish(self) -> None:
        wild = []
        for text in self._texts:
            if has_wildcards(text) or "\\" in text:
                wild.append(ignore_regex(text))
            else:
                self._exact.add(text)
        if wild:
            self._regex = re.compile("|".join(wild))

    def matches(self, path: str) -> bool:
        if path in self._exact:
            return True
        return self._regex is not None and self._regex.fullmatch(path) is not None

    def reaches_below(self, folder: str) -> bool:
        return any(_reaches_below(text, folder) for text in self._texts)


def _reaches_below(pattern: str, folder: str) -> bool:
    """Whether a pattern may describe a path below a folder."""
    parts = pattern.split("/")
    names = folder.split("/")
    for part, name in zip(parts, names, strict=False):
        if "**" in part:
            return True
        # A class may hold a slash: then the parts are not names.
        if "[" in part or "\\" in part:
            return True
        if not compiled(part).fullmatch(name):
            return False
    return len(parts) > len(names)
