"""What ``${x#pattern}``, ``${x%pattern}`` and ``${x/pattern/text}`` do to a value.

A pattern knows ``*``, ``?`` and the escape. Matching follows all ways at once, so its time grows
with the lengths of pattern and value, however many stars there are.
"""

from __future__ import annotations

from enum import Enum

# Places that are looked at for one word: a second of work, more or less.
MAX_WORK = 5_000_000


class InvalidPattern(ValueError):
    """A pattern with an escape that means nothing, or that is too much work for its value."""


class Budget:
    """The work that is left for the patterns of one word; ``spent`` is what was done."""

    def __init__(self) -> None:
        self.spent = 0

    def spend(self, places: int) -> None:
        """Count places of a value that a pattern looks at. Raises InvalidPattern."""
        self.spent += places
        if self.spent > MAX_WORK:
            raise InvalidPattern("The pattern and the value are too long for each other.")


class _WildLetters(Enum):
    ONE = "?"
    ANY = "*"


# Neither matches the end of a line.
_Tokens = list[str | _WildLetters]


def _tokens(pattern: str) -> _Tokens:
    tokens: _Tokens = []
    pos = 0
    while pos < len(pattern):
        char = pattern[pos]
        pos += 1
        if char == "\\":
            following = pattern[pos : pos + 1]
            # The escape of } and / ends with the substitution around, and is not the pattern's.
            if following and following in "}/":
                continue
            if not following or following not in "*?\\":
                raise InvalidPattern(f"The pattern '{pattern}' has an escape that means nothing.")
            tokens.append(following)
            pos += 1
        elif char == "*":
            if tokens[-1:] != [_WildLetters.ANY]:
                tokens.append(_WildLetters.ANY)
        else:
            tokens.append(_WildLetters.ONE if char == "?" else char)
    return tokens


def _ends(tokens: _Tokens, text: str, begins: list[int], budget: Budget) -> list[int]:
    """Where matches that begin at one of the places may end, in order."""
    places = begins
    for token in tokens:
        budget.spend(len(places) + 1)
        if token is _WildLetters.ANY:
            reached: list[int] = []
            far = -1
            for place in places:
                if place <= far:
                    continue
                line_end = text.find("\n", place)
                far = len(text) if line_end < 0 else line_end
                budget.spend(far + 1 - place)
                reached.extend(range(place, far + 1))
            places = reached
        elif token is _WildLetters.ONE:
            places = [at + 1 for at in places if at < len(text) and text[at] != "\n"]
        else:
            places = [at + 1 for at in places if text[at : at + 1] == token]
        if not places:
            break
    return places


def without_prefix(pattern: str, value: str, budget: Budget, *, longest: bool) -> str:
    """The value without what the pattern matches at its beginning."""
    ends = _ends(_tokens(pattern), value, [0], budget)
    return value[ends[-1 if longest else 0] :] if ends else value


def without_suffix(pattern: str, value: str, budget: Budget, *, longest: bool) -> str:
    """The value without what the pattern matches at its end."""
    ends = _ends(_tokens(pattern)[::-1], value[::-1], [0], budget)
    return value[: len(value) - ends[-1 if longest else 0]] if ends else value


def replace(pattern: str, replacement: str, value: str, budget: Budget, *, everywhere: bool) -> str:
    """The value with the first match of the pattern, or every one, replaced."""
    tokens = _tokens(pattern)
    backwards = _ends(tokens[::-1], value[::-1], list(range(len(value) + 1)), budget)
    starts = sorted(len(value) - end for end in backwards)
    parts: list[str] = []
    done, last_end = 0, -1
    for start in starts:
        if start < done:
            continue
        end = _ends(tokens, value, [start], budget)[-1]
        # Nothing at all is not replaced right behind what has just been.
        if end == start == last_end:
            continue
        parts += [value[done:start], replacement]
        done = last_end = end
        if not everywhere:
            break
    return "".join([*parts, value[done:]])
