"""Amounts of memory as people write them: ``2.0G``."""

from __future__ import annotations


def gnu_size(count: int) -> str:
    """Bytes in powers of 1024 with one letter, as ``ls -h`` writes them.

    >>> gnu_size(2 << 30)
    '2.0G'
    """
    value = float(count)
    for unit in ("B", "K", "M", "G", "T"):
        if value < 1024:
            return f"{count}B" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}P"
