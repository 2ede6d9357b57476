"""Paths of the storage: what is allowed in one, and which bytes a name has on disk."""

from __future__ import annotations

import os
from urllib.parse import unquote_to_bytes

from neuro.domain.errors import InvalidInput, StorageFault
from neuro.domain.uris import check_path_segments

# The kernel takes 4,095 bytes at once, and the same files have longer paths inside a job.
MAX_PATH_BYTES = 3072
MAX_NAME_BYTES = 255
# For the HTTP server: a quoted byte is three, and RENAME has two paths in its line.
MAX_LINE_BYTES = 32 << 10

# Uploads on their way, one folder in each owner's tree, so that the last step is a rename.
STAGING = ".neuro-uploads"

# Stands for bytes that are no UTF-8, in names that jobs made.
UNREADABLE = "\ufffd"


def parse_path(text: str) -> tuple[str, ...]:
    """The segments of ``/owner/path``. Raises InvalidInput, and StorageFault for a long one."""
    _check_length(text)
    segments = check_path_segments(text.split("/"), text)
    if segments and segments[0].startswith("."):
        raise InvalidInput(
            f"'{segments[0]}' is not an owner: an owner's name begins with a letter."
        )
    if len(segments) > 1 and segments[1] == STAGING:
        raise InvalidInput(f"'{STAGING}' is reserved for unfinished uploads: choose another name.")
    return segments


def parse_quoted_path(raw: str) -> tuple[str, ...]:
    """The segments of a path as it stands in a request's line (percent-encoded UTF-8)."""
    try:
        text = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidInput("A path must be in UTF-8.") from None
    return parse_path(text)


def parse_relative(text: str) -> tuple[str, ...]:
    """The segments of a path below some folder, as bulk transfers name their files."""
    _check_length(text)
    segments = check_path_segments(text.split("/"), text)
    if not segments:
        raise InvalidInput("A file of a bulk transfer has no name.")
    return segments


def _check_length(text: str) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInput("A path must be in UTF-8.") from None
    if length > MAX_PATH_BYTES:
        raise StorageFault(
            "ENAMETOOLONG", f"The path is {length} bytes long; {MAX_PATH_BYTES} is the most."
        )
    if length > MAX_NAME_BYTES and max(map(len, text.encode().split(b"/"))) > MAX_NAME_BYTES:
        raise StorageFault(
            "ENAMETOOLONG", f"A name in the path is over {MAX_NAME_BYTES} bytes long."
        )


def readable(name: str | bytes) -> str:
    """A name from the disk as clients see it: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")
