"""Which tags of an image stay, by the rules of its owner. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from neuro.domain.errors import InvalidInput
from neuro.domain.image_upkeep import ImageRules, ImageRulesInForce
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import MAX_TAG

MAX_PATTERNS = 20
MAX_KEPT = 1_000_000
MAX_SECONDS = 100 * 365 * 86_400.0


class KeptTag(NamedTuple):
    """A tag: when it was pushed, and when its image was last pulled."""

    tag: str
    set_at: datetime
    pulled_at: datetime | None


def check_rules(rules: ImageRules) -> None:
    """Raise InvalidInput for rules that cannot be meant."""
    if rules.keep_last is not None and not 1 <= rules.keep_last <= MAX_KEPT:
        raise InvalidInput(f"keep_last is {rules.keep_last}: give a count from 1 to {MAX_KEPT}.")
    if rules.keep_seconds is not None and not 1 <= rules.keep_seconds <= MAX_SECONDS:
        raise InvalidInput(
            f"keep_seconds is {rules.keep_seconds}: give seconds, from 1 to a century."
        )
    if rules.keep_tags and rules.keep_last is None and rules.keep_seconds is None:
        raise InvalidInput(
            "keep_tags is what stays beside the newest tags: give keep_last or keep_seconds, too."
        )
    for patterns in (rules.keep_tags, rules.immutable):
        if len(patterns) > MAX_PATTERNS:
            raise InvalidInput(f"There can be {MAX_PATTERNS} patterns, not {len(patterns)}.")
        for pattern in patterns:
            if not pattern.isprintable() or not 1 <= len(pattern) <= MAX_TAG:
                raise InvalidInput(
                    f"'{pattern[:MAX_TAG]}' is not a pattern of tags: write it like v*, with"
                    f" {MAX_TAG} characters at most."
                )


def matches(tag: str, patterns: Iterable[str]) -> bool:
    """Whether a tag is like one of the patterns.

    >>> matches("v1.2", ["latest", "v*"])
    True
    """
    return any(fnmatch.fnmatchcase(tag, pattern) for pattern in patterns)


def outdated(tags: Collection[KeptTag], rules: ImageRules, now: datetime) -> list[str]:
    """The tags that the rules let go."""
    if rules.keep_last is None and rules.keep_seconds is None:
        return []
    free = [tag for tag in tags if not matches(tag.tag, [*rules.keep_tags, *rules.immutable])]
    free.sort(key=lambda tag: (tag.set_at, tag.tag), reverse=True)
    before = now - timedelta(seconds=rules.keep_seconds or 0)
    return [
        tag.tag
        for tag in free[rules.keep_last or 0 :]
        if rules.keep_seconds is None or max(tag.set_at, tag.pulled_at or tag.set_at) < before
    ]


def prefixes(path: str) -> list[str]:
    """What a path begins with, the longest first: rules of the first one that has some hold.

    >>> prefixes("anna/team/x")
    ['anna/team/x', 'anna/team', 'anna']
    """
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def in_force(path: str, known: Mapping[str, ImageRules]) -> ImageRulesInForce:
    """The rules that hold for a path, of those that are known."""
    for prefix in prefixes(path):
        if prefix in known:
            return ImageRulesInForce(path=prefix, rules=known[prefix])
    return ImageRulesInForce(path=None, rules=ImageRules())


def check_movable(path: str, tags: Iterable[str], rules: ImageRules) -> None:
    """Raise RegistryError for a tag that is to stay what it is."""
    for tag in tags:
        if matches(tag, rules.immutable):
            raise RegistryError(
                "DENIED",
                403,
                f"The tag '{tag}' of '{path}' is immutable: push under another tag. `neuro image"
                f" rules image:/{path}` shows the rules, which those who manage the image set.",
            )
