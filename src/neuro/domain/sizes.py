"""Sizes as people write them, in powers of 1024."""

from __future__ import annotations

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, MIB

TIB = 1 << 40
MOST = 1024 * TIB  # more than any machine has


def check_size(key: str, text: int | str, least: int = MIB, *, or_zero: bool = False) -> None:
    """Raise InvalidInput where ``text`` is not a size from ``least`` (bytes) to 1024T.

    ``key`` begins the sentence. ``or_zero`` allows 0 too, which means no limit.
    """
    try:
        size = parse_bytes(text)
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error}") from None
    if not least <= size <= MOST and not (or_zero and size == 0):
        zero = "0 for no limit, or " if or_zero else ""
        low = f"{least >> 20}M" if least else "0"
        raise InvalidInput(
            f"{key} is {text}: give {zero}a size from {low} to {MOST // TIB}T, like 2G"
        )


def parse_bytes(text: int | str) -> int:
    """``2G``, ``512M``, ``1.5T`` or plain bytes. Raises InvalidInput.

    >>> parse_bytes("2G")
    2147483648
    """
    if isinstance(text, int):
        return text
    units = {"K": 1 << 10, "M": MIB, "G": GIB, "T": TIB}
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = units.get(number[-1:], 1)
    try:
        size = int(float(number[:-1] if unit > 1 else number) * unit)
        if size < 0:
            raise ValueError(size)
        return size
    except (ValueError, OverflowError):
        raise InvalidInput(f"'{text}' is not a size: write it like 512M or 2G") from None
