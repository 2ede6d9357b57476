"""Short URIs, as people write them, to the full ones that the server knows.

See docs/reference/wire-protocol.md#names-and-uris.
"""

from __future__ import annotations

from urllib.parse import quote

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, parse_uri


def expand_uri(text: str, scheme: str, *, cluster: str, user: str) -> str:
    """The full, quoted form of ``storage:data``, ``storage:/bob/data``, ``storage://c/bob/data``.

    Raises InvalidInput for another scheme and for what ``parse_uri`` refuses.
    """
    if not text.startswith(f"{scheme}:"):
        raise InvalidInput(f"'{text}' is no {scheme}: URI.")
    rest = text.removeprefix(f"{scheme}:")
    if rest.startswith("~"):
        raise InvalidInput(f"'{text}': '~' means nothing here; '{scheme}:' is your own folder.")
    if rest.startswith("//"):
        full = text
    elif rest.startswith("/"):
        full = f"{scheme}://{cluster}{rest}"
    else:
        full = f"{scheme}://{cluster}/{user}/{rest}"
    return full_text(parse_uri(full))


def full_text(uri: ResourceURI) -> str:
    """A URI with what has a meaning in URIs quoted."""
    path = "/".join(quote(segment, safe="!$&'()*+,;=:@~") for segment in uri.segments)
    return f"{uri.scheme}://{uri.host}/{path}".rstrip("/")
