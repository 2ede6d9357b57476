"""Sizes as people write them, in powers of 1024."""

from __future__ import annotations

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, MIB


def check_size(key: str, text: int | str, least: int = MIB) -> None:
    """Raise InvalidInput where a size is none, or too small. ``key`` begins the sentence."""
    try:
        size = parse_bytes(text)
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error}") from None
    if size < least:
        raise InvalidInput(f"{key} is {text}: it must be a size of {least >> 20}M or more, like 2G")


def parse_bytes(text: int | str) -> int:
    """``2G``, ``512M``, ``1.5T`` or plain bytes. Raises InvalidInput.

    >>> parse_bytes("2G")
    2147483648
    """
    if isinstance(text, int):
        return text
    units = {"K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = units.get(number[-1:], 1)
    try:
        size = int(float(number[:-1] if unit > 1 else number) * unit)
        if size < 0:
            raise ValueError(size)
        return size
    except (ValueError, OverflowError):
        raise InvalidInput(f"'{text}' is not a size: write it like 512M or 2G.") from None
