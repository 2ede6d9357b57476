"""Why an image cannot be had."""

from __future__ import annotations

from enum import Enum


class FaultKind(Enum):
    """Whom it concerns, and whether another try may help."""

    NOT_FOUND = "not found"  # the registry answers: there is no such image
    DENIED = "denied"  # the registry does not let us
    AWAY = "away"  # no registry answers
    CORRUPT = "corrupt"  # what came is not what its digest says, or is damaged
    REFUSED = "refused"  # it is whole, and we do not take it
    NO_ROOM = "no room"  # this machine's trouble


class ImageFault(Exception):
    """An image cannot be had; the text is a sentence for whoever asked for it."""

    def __init__(self, kind: FaultKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


def corrupt(sentence: str) -> ImageFault:
    """A layer, manifest or config that is damaged."""
    return ImageFault(FaultKind.CORRUPT, sentence)


def refused(sentence: str) -> ImageFault:
    """A layer, manifest or config that is whole and not taken."""
    return ImageFault(FaultKind.REFUSED, sentence)


def shown(name: bytes | str, most: int = 200) -> str:
    """What an archive or a registry says, as a person can read it in a sentence.

    One line, of no more than ``most`` characters of it.
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    text = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text[:most])
    return text if len(name) <= most else f"{text}…"
