"""From a caller's grants to places: what they may do, how far links may lead, what they see.

A grant covers everything below its URI, so a link may lead around inside that, and no further:
whoever may write into one shared folder cannot plant a link there that reads its owner's others.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuro.domain.errors import NotFound
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.storage.confine import Place


def authorize(identity: Identity, uri: ResourceURI, action: Action) -> Place:
    """The place behind a URI, if the caller may do ``action`` there (NotFound, NotPermitted)."""
    identity.require(uri, action)
    widest = identity.grants.depth_of(uri, action)
    # Not even a right to the whole cluster lets a link lead from one owner to another.
    return Place(uri.segments, min(max(widest, 1), len(uri.segments)))


@dataclass(frozen=True, slots=True)
class View:
    """What a caller sees of a folder: its own permission, and names that have a wider one.

    ``partial``: they may only pass through, and see the names in ``known`` and nothing else.
    """

    place: Place
    permission: Action
    known: dict[str, Action]
    partial: bool


def view(identity: Identity, uri: ResourceURI) -> View:
    """What the caller sees at a URI. Raises NotFound where that is nothing."""
    own = identity.action_on(uri)
    known = {
        name: max(own or Action.READ, action or Action.READ, key=lambda it: it.rank)
        for name, action in identity.grants.names_below(uri).items()
    }
    if own is not None:
        return View(authorize(identity, uri, Action.READ), own, known, partial=False)
    if not known:
        raise NotFound(f"'{uri}' was not found.")
    return View(Place(uri.segments, len(uri.segments)), Action.READ, known, partial=True)
