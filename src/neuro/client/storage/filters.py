"""Which files of a tree are copied: patterns as in ``.gitignore``, the last match decides.

A pattern without a slash matches a name at any depth; one with a slash inside or in front matches
from the folder that it belongs to; one with a slash at the end matches folders only. ``*`` and
``?`` do not match slashes, ``**`` does; ``[a-z]`` and ``[!a-z]`` match one character; ``\\`` takes
the next character as it is. In a file, ``!`` in front brings back what an earlier pattern left out,
and ``#`` begins a comment. What lies in a folder that is left out is left out with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

_CHUNK = re.compile(
    r"""(?P<deep>(?:^|/)\*{2,}(?:/|$))|(?P<stars>\*+)|(?P<one>\?)
    |(?P<set>\[[!^]?\]?[^\]/]*\])|(?P<quoted>\\.)|(?P<plain>.)""",
    re.VERBOSE | re.DOTALL,
)
# "**/**/" says no more than "**/", and would be slow to match.
_REPEATED = re.compile(r"(^|/)(?:\*{2,}/)+(?=\*{2,}(?:/|$))")


class Rule(msgspec.Struct, frozen=True):
    """One pattern. ``base`` is the folder it belongs to, relative to the tree's top, or "".

    A pattern of a folder *above* the top (``outer``: the way from there to the top) still applies.
    """

    pattern: str
    exclude: bool = True
    base: str = ""
    outer: str = ""


class Filter:
    """An ordered list of rules; everything is copied that no rule leaves out."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._tests = [(rule, _compile(rule.pattern)) for rule in self.rules]

    def __bool__(self) -> bool:
        return bool(self.rules)

    def extended(self, rules: Iterable[Rule]) -> Filter:
        """A filter with more rules behind these."""
        more = tuple(rules)
        return Filter((*self.rules, *more)) if more else self

    def keeps(self, path: str, *, is_folder: bool) -> bool:
        """Whether ``path`` (relative to the top, ``a/b``) is copied, its folders being so."""
        for rule, matches in reversed(self._tests):
            inside = path
            if rule.base:
                if not path.startswith(f"{rule.base}/"):
                    continue
                inside = path[len(rule.base) + 1 :]
            if rule.outer:
                inside = f"{rule.outer}/{inside}"
            if matches(inside, is_folder):
                return not rule.exclude
        return True


def parse_ignore_file(text: str, *, base: str = "", outer: str = "") -> list[Rule]:
    """The rules of a ``.neuroignore`` that lies in ``base`` (or above the top, see ``Rule``)."""
    rules = []
    for line in text.splitlines():
        pattern = _without_trailing_spaces(line)
        if not pattern or pattern.startswith("#"):
            continue
        exclude = not pattern.startswith("!")
        pattern = pattern if exclude else pattern[1:]
        if pattern.strip("/"):
            rules.append(Rule(pattern, exclude, base, outer))
    return rules


def _without_trailing_spaces(line: str) -> str:
    kept = line.rstrip()
    # "\ " at the end is a space that was meant.
    if kept.endswith("\\") and len(kept) < len(line) and (len(kept) - len(kept.rstrip("\\"))) % 2:
        return kept + " "
    return kept


def _compile(pattern: str) -> Callable[[str, bool], bool]:
    folders_only = pattern.endswith("/")
    body = pattern.rstrip("/") if folders_only else pattern
    anchored = "/" in body
    expression = re.compile(translate(body.removeprefix("/")), re.DOTALL)

    def matches(path: str, is_folder: bool) -> bool:
        if folders_only and not is_folder:
            return False
        subject = path if anchored else path.rpartition("/")[2]
        return expression.fullmatch(subject) is not None

    return matches


def translate(pattern: str) -> str:
    """The regular expression of a pattern; the whole of a path must match it."""
    simple = _REPEATED.sub(r"\1", pattern)
    return "".join(_piece(match) for match in _CHUNK.finditer(simple))


def _piece(match: re.Match[str]) -> str:
    text = match[0]
    if match["deep"]:
        if "/" not in text:
            return ".*"
        if text.endswith("/"):
            return "/(?:.*/)?" if text.startswith("/") else "(?:.*/)?"
        return "/.*"
    if match["stars"]:
        return "[^/]*"
    if match["one"]:
        return "[^/]"
    if match["set"]:
        return _set(text[1:-1])
    return re.escape(text[1:] if match["quoted"] else text)


def _set(inside: str) -> str:
    negated = inside[:1] in ("!", "^")
    members = inside[1:] if negated else inside
    escaped = re.sub(r"([\\\[\]&~|^])", r"\\\1", members)
    expression = f"[{'^/' if negated else ''}{escaped}]"
    try:
        re.compile(expression)
    except re.error:
        return re.escape(f"[{inside}]")  # "[z-a]" is no set: it stands for itself.
    return f"(?!/){expression}"
