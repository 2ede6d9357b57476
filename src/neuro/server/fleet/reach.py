"""Whether an address of one server leads another one to it, or to whoever listens there."""

from __future__ import annotations

import hashlib
import socket
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from yarl import URL


@cache
def this_machine() -> str:
    """The same for all servers of one machine, also after a restart of it.

    Containers and copies of a machine may have its id, and have names of their own.
    """
    place = socket.gethostname()
    with suppress(OSError):
        place += " " + Path("/etc/machine-id").read_text("ascii").strip()
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def is_of_its_machine(url: str) -> bool:
    """Whether this address means another server on each machine."""
    host = URL(url).host or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
