"""Scopes as the token protocol of registries writes them: ``repository:anna/trainer:pull,push``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neuro.domain.errors import InvalidInput
from neuro.domain.permissions import Action
from neuro.server.access.scopes import Scope
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import Repository, parse_repository

# A token is a header, and those of aiohttp have 8 KiB at most.
MAX_SCOPES = 8
_MAX_TEXT = 4096
_CATALOG = "registry:catalog:*"
_PULL, _ALL = "pull", "pull,push,delete"


def parse_scopes(texts: Sequence[str], cluster: str) -> Scope:
    """What a client asks a token for; several scopes may come in one text.

    What names no image that there could be, is of another type, or has actions that are not known
    is left out, as the protocol has it. Raises InvalidInput for too many.

    >>> [str(uri) for uri, _ in parse_scopes(["repository:anna/a:pull"], "default").images]
    ['image://default/anna/a']
    """
    if sum(map(len, texts)) > _MAX_TEXT:
        raise InvalidInput(f"The scopes have more than {_MAX_TEXT} characters: ask for fewer.")
    words = list(dict.fromkeys(word for text in texts for word in text.split()))
    if len(words) > MAX_SCOPES:
        raise InvalidInput(f"A token can be for {MAX_SCOPES} scopes, not {len(words)}.")
    found: dict[Repository, Action] = {}
    for word in words:
        kind, _, rest = word.partition(":")
        name, _, actions = rest.rpartition(":")
        action = _action(actions.split(","))
        if kind.partition("(")[0] != "repository" or action is None:
            continue
        try:
            repository = parse_repository(name)
        except RegistryError:
            continue
        before = found.get(repository, action)
        found[repository] = action if action.includes(before) else before
    images = tuple((repository.uri(cluster), action) for repository, action in found.items())
    return Scope(images, lists=_CATALOG in words)


def as_text(scope: Scope) -> str:
    """What a token is for, as the protocol writes it."""
    words = [
        f"repository:{'/'.join(uri.segments)}:{_PULL if action is Action.READ else _ALL}"
        for uri, action in scope.images
    ]
    return " ".join(words + [_CATALOG] * scope.lists)


def _action(actions: Iterable[str]) -> Action | None:
    wanted = set(actions)
    if wanted & {"push", "delete", "*"}:
        return Action.WRITE
    return Action.READ if "pull" in wanted else None
