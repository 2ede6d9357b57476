"""What people decide of the images that the registry keeps, and are told: rules, quotas, files."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class WhyStored(StrEnum):
    """Why a file of the registry is on the disk."""

    NEEDED = "needed"  # by an image
    RECENT = "recent"  # pushed, or given up by an image, a short while ago
    GARBAGE = "garbage"  # the next collection deletes it
    UPLOAD = "upload"  # has begun, and not ended


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the registry. ``size`` in bytes; ``of`` is an image that it belongs to.

    ``until`` is when it goes, if nothing comes to need it. An upload has no ``digest`` yet.
    """

    size: int
    why: WhyStored
    digest: str | None = None
    of: str | None = None
    until: datetime | None = None


class ImageRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tags of an image stay, and which stay what they are.

    With ``keep_last`` or ``keep_seconds`` (or both) all others are removed: but the newest, those
    that were pushed or pulled since, and those that match one of ``keep_tags``. What matches one of
    ``immutable`` is neither moved nor removed. Patterns are as in a shell: ``v*``, ``release-?``.
    """

    keep_last: int | None = None
    keep_seconds: float | None = None
    keep_tags: list[str] = []
    immutable: list[str] = []


class ImageRulesInForce(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of an image, and whose they are: its own, or those of a name that it begins with.

    ``path`` is None where there are none.
    """

    path: str | None
    rules: ImageRules


class ImageTag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag, and the image that it leads to.

    ``size`` is in bytes, of all the parts that were there when the image was last pushed; a layer
    counts once for each platform that has it. ``pulled_at`` is to the hour; None: never.
    """

    tag: str
    digest: str
    size: int
    pushed_at: datetime
    pulled_at: datetime | None
    is_immutable: bool


class ImageQuota(msgspec.Struct, frozen=True, kw_only=True):
    """How much somebody's images may take, and do take, in bytes. ``size`` None: no limit.

    Those of their service accounts are among them; what several images have counts once.
    """

    owner: str
    size: int | None
    used: int


class ImageQuotaRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many bytes somebody's images may take; 0 for no limit, None for what all have."""

    size: int | None


class ScrubbedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the registry that was read again. ``of`` is an image that needs it."""

    digest: str
    size: int
    is_rotten: bool
    of: str | None = None
