"""Patterns of paths: those of COPY (Go's ``filepath.Match``) and those of ``.dockerignore``.

Both become regular expressions whose time grows with the length of the path, not with its power:
a star takes as little as it can, and what is found so is not tried again (an atomic group). That is
right where what follows is another star of the same kind, which could take the rest as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class BadPattern(ValueError):
    """A pattern that cannot be read."""


class _Wild(Enum):
    STAR = "[^/]*"
    """Within one name."""
    DEEP = "**"
    """Any number of folders: ``**/``."""
    REST = "(?s:.*)"
    """``**`` at the end: whatever follows."""


_SPECIAL = re.compile(r"[*?\[\]\\]")

# Of "**" that may end in the middle of a name: each one multiplies the ways to be tried.
_MOST_LOOSE = 2

# Pieces of regular expressions with a fixed meaning, and wild cards between them.
_Tokens = list[str | _Wild]


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of a ``filepath.Match`` pattern. Raises BadPattern."""
    return re.compile(_regex(_tokens(pattern, deep=False)))


def matches(pattern: str, path: str) -> bool:
    """Whether a path is what the pattern describes, from end to end.

    >>> matches("src/*.py", "src/a.py"), matches("*", "a/b")
    (True, False)
    """
    return compiled(pattern).fullmatch(path) is not None


def has_wildcards(pattern: str) -> bool:
    """Whether a pattern may describe more than one path."""
    return re.search(r"[*?\[]", re.sub(r"\\.", "", pattern, flags=re.DOTALL)) is not None


def ignore_regex(pattern: str) -> str:
    """The regular expression of a clean ``.dockerignore`` pattern. Raises BadPattern.

    ``**`` takes whole folders, but before plain letters only it takes anything: ``**.py``.
    """
    ending = pattern.removeprefix("**")
    if ending != pattern and not ending.startswith("/") and not _SPECIAL.search(ending):
        return "(?s:.*)" + re.escape(ending)
    return _regex(_tokens(pattern, deep=True))


def _tokens(pattern: str, *, deep: bool) -> _Tokens:
    tokens: _Tokens = []
    pos = 0
    while pos < len(pattern):
        char = pattern[pos]
        pos += 1
        if char == "*" and deep and pattern.startswith("*", pos):
            pos += 1
            if pattern.startswith("/", pos):
                pos += 1
            at_end = pos == len(pattern)
            if at_end or tokens[-1:] != [_Wild.DEEP]:
                tokens.append(_Wild.REST if at_end else _Wild.DEEP)
        elif char == "*":
            if tokens[-1:] != [_Wild.STAR]:
                tokens.append(_Wild.STAR)
        elif char == "?":
            tokens.append("[^/]")
        elif char == "[":
            text, pos = _class(pattern, pos)
            tokens.append(text)
        elif char == "\\":
            if pos == len(pattern):
                raise BadPattern(f"'{pattern}' ends with an escape.")
            tokens.append(re.escape(pattern[pos]))
            pos += 1
        else:
            tokens.append(re.escape(char))
    return tokens


def _class(pattern: str, pos: int) -> tuple[str, int]:
    negated = pattern.startswith("^", pos)
    pos += negated
    ranges: list[str] = []
    while not ranges or not pattern.startswith("]", pos):
        low, pos = _letter(pattern, pos)
        high = low
        if pattern.startswith("-", pos):
            high, pos = _letter(pattern, pos + 1)
        # A range that is the wrong way round holds nothing.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
        if pos >= len(pattern):
            raise BadPattern(f"'{pattern}' has a [ that is not closed.")
    inner = "".join(ranges)
    if not inner:
        return ("(?s:.)" if negated else "(?!)"), pos + 1
    return f"[{'^' if negated else ''}{inner}]", pos + 1


def _letter(pattern: str, pos: int) -> tuple[str, int]:
    char = pattern[pos : pos + 1]
    if char == "\\":
        pos += 1
        char = pattern[pos : pos + 1]
    elif char in ("-", "]"):
        char = ""
    if not char:
        raise BadPattern(f"'{pattern}' has a [ that is not closed, or closes too early.")
    return char, pos + 1


@dataclass(frozen=True, slots=True)
class _Part:
    wild: _Wild | None
    fixed: str


def _regex(tokens: _Tokens) -> str:
    parts = [_Part(None, "")]
    for token in tokens:
        if isinstance(token, _Wild):
            parts.append(_Part(token, ""))
        else:
            parts[-1] = _Part(parts[-1].wild, parts[-1].fixed + token)
    blocks: list[list[_Part]] = [[]]
    for part in parts:
        if part.wild is _Wild.DEEP:
            blocks.append([])
        blocks[-1].append(part)
    whole = [block[-1].fixed.endswith("/") for block in blocks[:-1]]
    if whole[1:].count(False) > _MOST_LOOSE:
        raise BadPattern("It has too many '**' with no '/' before them: write folder/**/name.")
    return "".join(map(_block, blocks, [*whole, False]))


def _block(parts: list[_Part], whole: bool) -> str:
    """From one ``**`` to the next. Whole names may be taken as early as they are found."""
    text = ""
    for index, part in enumerate(parts):
        following = parts[index + 1].wild if index + 1 < len(parts) else None
        if part.wild is _Wild.STAR and following is _Wild.STAR:
            text += f"(?>[^/]*?{part.fixed})"
        elif part.wild is _Wild.DEEP:
            text += f"(?:.*?/)??{part.fixed}"
        else:
            text += (part.wild.value if part.wild else "") + part.fixed
    return f"(?>{text})" if whole else text
