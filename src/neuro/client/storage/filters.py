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

# "**/**/" says no more than "**/", and would be slow to match.
_REPEATED = re.compile(r"(^|/)(?:\*{2,}/)+(?=\*{2,}(?:/|$))")
# In pathspec's expressions a negated set matches slashes; in git none does.
_NEGATED = re.compile(r"\[\^(?!\])")


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
    for line in text.split("\n"):
        pattern = line.removesuffix("\r")
        if not pattern.strip(" /") or pattern.startswith("#"):
            continue
        exclude = not pattern.startswith("!")
        rules.append(Rule(pattern if exclude else pattern[1:], exclude, base, outer))
    return rules


def _compile(pattern: str) -> Callable[[str, bool], bool]:
    # It takes long to load, and most copies have no patterns.
    from pathspec.patterns.gitignore import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    body = pattern.rstrip("/")
    folders_only = body != pattern
    anchored = "/" in body
    simple = _REPEATED.sub(r"\1", body)
    # What begins a comment, or brings back, in a file was told from this pattern before.
    simple = f"\\{simple}" if simple.startswith(("#", "!")) else simple
    try:
        parsed = GitIgnoreSpecPattern(simple).regex
    except (GitIgnorePatternError, re.error):
        parsed = None
    if parsed is None:  # Git does not match what it does not understand, either.
        return lambda _path, _is_folder: False
    expression = re.compile(_NEGATED.sub("[^/", parsed.pattern), re.DOTALL)

    def matches(path: str, is_folder: bool) -> bool:
        if folders_only and not is_folder:
            return False
        found = expression.match(path if anchored else path.rpartition("/")[2])
        # This group stands for a folder that the path is in: that one was decided before.
        return found is not None and found.groupdict().get("ps_d") is None

    return matches
