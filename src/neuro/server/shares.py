"""How a bounded whole is divided among people: one's abundance costs the others nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Holder = TypeVar("Holder")


def fair_shares(held: Mapping[Holder, int], total: int) -> dict[Holder, int]:
    """How much of what each holds may stay, at most ``total`` together.

    Whoever holds the most gives first: nobody gives while another has more left.

    >>> fair_shares({"anna": 900, "bob": 20, "eve": 300}, 500)
    {'bob': 20, 'eve': 240, 'anna': 240}
    """
    shares: dict[Holder, int] = {}
    left = total
    for holder, amount in sorted(held.items(), key=lambda item: item[1]):
        shares[holder] = min(amount, left // (len(held) - len(shares)))
        left -= shares[holder]
    return shares
