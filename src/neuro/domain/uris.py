"""URIs of what the platform keeps: ``storage://<cluster>/<owner>/<path>``, ``job://…`` …

The one parser for the command line, volumes, flow files, the SDK and the server. It drops nothing
of what was written: ``urllib`` removes tabs and line ends, and another file would be meant then.
"""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

import msgspec

from neuro.domain.errors import InvalidInput

CLUSTER_SCHEMES = ("storage", "job", "image", "secret", "disk", "blob", "flow")
GLOBAL_SCHEMES = ("user", "role", "cluster")

MAX_URI_LENGTH = 4096
# What may stand in a path as it is.
_SAFE = "!$&'()*+,;=:@~"


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
            raise InvalidInput(
                f"'{self}' does not name an owner: write {self.scheme}://CLUSTER/OWNER/…"
            )
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
    r"""Parse a full URI; ``%XX`` is decoded, every other character means itself.

    >>> parse_uri("storage://default/anna/a%20b\n").segments
    ('anna', 'a b\n')

    Raises InvalidInput for an unknown scheme, a missing host, ``..``, NUL, ``?``, ``#``, and for
    names that are not UTF-8.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in CLUSTER_SCHEMES + GLOBAL_SCHEMES:
        known = ", ".join(f"{scheme}:" for scheme in CLUSTER_SCHEMES + GLOBAL_SCHEMES)
        raise InvalidInput(f"'{text}' has no known scheme; known are {known}.")
    host, _, path = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not host or not _is_host(host):
        raise InvalidInput(f"'{text}' is not a full URI: write {scheme}://NAME/…")
    return ResourceURI(scheme, host, _segments(path, text))


def complete_uri(text: str, scheme: str, *, cluster: str, user: str) -> ResourceURI:
    """The full URI of a short one: ``storage:data``, ``storage:/bob/data``, ``storage://lab/…``.

    >>> str(complete_uri("storage:data", "storage", cluster="lab", user="anna"))
    'storage://lab/anna/data'

    Raises InvalidInput for another scheme and for what ``parse_uri`` refuses.
    """
    host, path = split_short(text, scheme, cluster=cluster, user=user)
    return parse_uri(f"{scheme}://{host}/{path}")


def split_short(text: str, scheme: str, *, cluster: str, user: str) -> tuple[str, str]:
    """The host and the path, both as they were written, of a URI that may be short.

    Raises InvalidInput for another scheme and for ``~``.
    """
    if not text.startswith(f"{scheme}:"):
        near = text.rpartition(":")[2]
        raise InvalidInput(f"'{text}' is not a {scheme} URI. Did you mean '{scheme}:{near}'?")
    rest = text.removeprefix(f"{scheme}:")
    if rest.startswith("~"):
        raise InvalidInput(f"'{text}': '~' means nothing here; '{scheme}:' is your own folder.")
    if rest.startswith("//"):
        host, _, path = rest[2:].partition("/")
        return host, path
    return cluster, rest[1:] if rest.startswith("/") else f"{user}/{rest}"


def decode_path(path: str, text: str) -> str:
    """``path`` with its ``%XX`` decoded. Raises InvalidInput unless it is UTF-8."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"'{text}' cannot be sent: the name is not in UTF-8.") from None
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidInput(
            f"'{text}': the characters behind '%' are not UTF-8. Write a percent sign as %25."
        ) from None


def quoted_name(name: str) -> str:
    """A name as a person types it in a URI: only what would mean something else is quoted.

    >>> quoted_name("50% of it?")
    '50%25 of it%3F'
    """
    return name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")


def typed_text(uri: ResourceURI) -> str:
    """The URI as a person types it, which ``parse_uri`` reads back.

    >>> typed_text(ResourceURI("storage", "lab", ("anna", "50% of it?")))
    'storage://lab/anna/50%25 of it%3F'
    """
    return f"{uri.scheme}://" + "/".join((uri.host, *map(quoted_name, uri.segments)))


def quoted_path(uri: ResourceURI) -> str:
    """The path as it stands in a request's line. Raises InvalidInput unless it is UTF-8."""
    try:
        return "".join("/" + quote(segment, safe=_SAFE) for segment in uri.segments)
    except UnicodeEncodeError:
        raise InvalidInput(f"'{uri.path}' cannot be sent: the name is not in UTF-8.") from None


def full_text(uri: ResourceURI) -> str:
    """The URI as text that ``parse_uri`` reads back."""
    return f"{uri.scheme}://{uri.host}{quoted_path(uri)}"


def _is_host(host: str) -> bool:
    return host.isprintable() and not any(c in "@: %?#" for c in host)


def _segments(path: str, text: str) -> tuple[str, ...]:
    if len(text) > MAX_URI_LENGTH:
        raise InvalidInput(f"A URI can be {MAX_URI_LENGTH} characters long, not {len(text)}.")
    if "?" in path or "#" in path:
        raise InvalidInput(f"'{text}' has '?' or '#': write them as %3F and %23.")
    return check_path_segments(decode_path(path, text).split("/"), text)
