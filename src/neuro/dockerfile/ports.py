"""The ports of EXPOSE: ``80``, ``8000-8005/udp``, and forms of ``docker run`` that it accepts."""

from __future__ import annotations

import ipaddress

from neuro.dockerfile.values import integer

MAX_PORTS = 65_536


def exposed(text: str) -> list[str] | None:
    """The ports of one word, each with its protocol. None: these are not ports.

    >>> exposed("8000-8002/UDP")
    ['8000/udp', '8001/udp', '8002/udp']
    """
    parts = text.split(":")
    address = ":".join(parts[:-2])
    host = parts[-2] if len(parts) > 1 else ""
    inside, _, protocol = parts[-1].partition("/")
    if protocol.lower() not in ("", "tcp", "udp", "sctp") or not _is_address(address):
        return None
    ports = _range(inside)
    if ports is None:
        return None
    if host:
        outside = _range(host)
        if outside is None or (len(outside) != len(ports) and len(ports) > 1):
            return None
    return [f"{port}/{protocol.lower() or 'tcp'}" for port in ports]


def _is_address(text: str) -> bool:
    if not text:
        return True
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _range(text: str) -> range | None:
    first, dash, last = text.partition("-")
    low, high = integer(first), integer(last) if dash else integer(first)
    if low is None or high is None or not 0 <= low <= high < MAX_PORTS:
        return None
    return range(low, high + 1)
