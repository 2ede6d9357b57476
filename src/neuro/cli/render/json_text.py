"""What commands print for programs: JSON with the names of the API, and times of RFC 3339.

A command that prints a table or a report prints one document with ``--json``; one that goes on
prints a line for each item as it comes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])

_OBEYED = re.compile(r"[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def json_option(text: str = "Print one JSON document, for programs.") -> Callable[[F], F]:
    """The option ``--json``, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def plain(value: Any) -> Any:
    """``value`` with every field of every message: what is not set is null, or empty."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {shown: plain(getattr(value, name)) for name, shown in names}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def document(value: Any) -> str:
    """One document, indented."""
    return msgspec.json.format(_encoded(value), indent=2).decode()


def line(value: Any) -> str:
    """One item of a stream, in a line."""
    return _encoded(value).decode()


def _encoded(value: Any) -> bytes:
    # What is of no type of JSON, as a path, is told as text.
    text = msgspec.json.encode(plain(value), enc_hook=str).decode()
    # JSON leaves these as they are; a terminal obeys some of them.
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
