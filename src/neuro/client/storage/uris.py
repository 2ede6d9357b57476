"""Storage URIs as people write them, and as requests carry them.

See docs/reference/wire-protocol.md#names-and-uris.
"""

from __future__ import annotations

from urllib.parse import quote

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, parse_uri

SCHEME = "storage"
# What may stand in a path as it is.
_SAFE = "!$&'()*+,;=:@~"


def storage_uri(text: str | ResourceURI, *, cluster: str, user: str) -> ResourceURI:
    """The full URI of ``storage:data``, ``storage:/bob/data`` or ``storage://cluster/bob/data``.

    Raises InvalidInput for another scheme, ``..``, ``~``, ``?`` and ``#``.
    """
    if isinstance(text, ResourceURI):
        return text
    if not text.startswith(f"{SCHEME}:"):
        near = text.rpartition(":")[2]
        raise InvalidInput(f"'{text}' is no storage URI. Did you mean 'storage:{near}'?")
    rest = text.removeprefix(f"{SCHEME}:")
    if rest.startswith("~"):
        raise InvalidInput(f"'{text}': '~' means nothing here; 'storage:' is your own folder.")
    if rest.startswith("//"):
        return parse_uri(text)
    if rest.startswith("/"):
        return parse_uri(f"{SCHEME}://{cluster}{rest}")
    return parse_uri(f"{SCHEME}://{cluster}/{user}/{rest}")


def quoted_path(uri: ResourceURI) -> str:
    """The URI's path as it stands in a request's line. Raises InvalidInput for no UTF-8."""
    try:
        return "".join("/" + quote(segment, safe=_SAFE) for segment in uri.segments)
    except UnicodeEncodeError:
        raise InvalidInput(f"{uri.path!r} cannot be sent: the name is not in UTF-8.") from None


def full_text(uri: ResourceURI) -> str:
    """The URI as text that can be read back."""
    return f"{uri.scheme}://{uri.host}{quoted_path(uri)}"
