"""URIs of what the platform keeps: ``storage://<cluster>/<owner>/<path>``, ``job://…`` …"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from neuro.domain.errors import InvalidInput

CLUSTER_SCHEMES = ("storage", "job", "image", "secret", "disk", "blob", "flow")
GLOBAL_SCHEMES = ("user", "role", "cluster")

MAX_URI_LENGTH = 4096


class ResourceURI(msgspec.Struct, frozen=True):
    """A parsed URI: scheme, host (a cluster, or a user or role), path segments."""

    scheme: str
    host: str
    segments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.scheme}://" + "/".join((self.host, *self.segments))

    @property
    def owner(self) -> str:
        """The first segment; raises InvalidInput where the URI names no owner."""
        if not self.segments:
            raise InvalidInput(f"'{self}' names no owner: write {self.scheme}://CLUSTER/OWNER/…")
        return self.segments[0]

    @property
    def path(self) -> str:
        """All behind the host, with a leading slash."""
        return "/" + "/".join(self.segments)

    def covers(self, other: ResourceURI) -> bool:
        """Whether ``other`` is this URI or lies below it."""
        return (
            self.scheme == other.scheme
            and self.host == other.host
            and other.segments[: len(self.segments)] == self.segments
        )

    def child(self, *names: str) -> ResourceURI:
        return ResourceURI(self.scheme, self.host, self.segments + names)


def check_path_segments(segments: list[str], text: str) -> tuple[str, ...]:
    """Drop empty and ``.`` segments; raise InvalidInput for ``..`` and NUL."""
    kept = [segment for segment in segments if segment not in ("", ".")]
    for segment in kept:
        if segment == "..":
            raise InvalidInput(f"'{text}' climbs out with '..': write the path without it.")
        if "\0" in segment:
            raise InvalidInput("A path cannot hold a NUL character.")
    return tuple(kept)


def parse_uri(text: str) -> ResourceURI:
    """Parse a full URI as the server knows it (quoted characters are decoded).

    Raises InvalidInput for an unknown scheme, a missing host, ``..``, NUL, query or fragment.
    """
    if len(text) > MAX_URI_LENGTH:
        raise InvalidInput(f"A URI can be {MAX_URI_LENGTH} characters long, not {len(text)}.")
    if "\0" in text:
        raise InvalidInput("A path cannot hold a NUL character.")
    parts = urlsplit(text)
    if parts.scheme not in CLUSTER_SCHEMES + GLOBAL_SCHEMES:
        known = ", ".join(f"{scheme}:" for scheme in CLUSTER_SCHEMES + GLOBAL_SCHEMES)
        raise InvalidInput(f"'{text}' has no known scheme; known are {known}.")
    if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
        raise InvalidInput(f"'{text}' is no full URI: write {parts.scheme}://NAME/…")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise InvalidInput(f"'{text}' has '?' or '#': write them as %3F and %23.")
    segments = [unquote(segment) for segment in parts.path.split("/")]
    return ResourceURI(parts.scheme, parts.netloc, check_path_segments(segments, text))
