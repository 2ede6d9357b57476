"""Which name servers jobs are told of, and may ask: both from one reading of resolv.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

# The second has the servers behind systemd's own, which listens on the host's loopback.
_PATHS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")


@dataclass(frozen=True)
class Resolvers:
    """``text`` is a job's resolv.conf, ``addresses`` are those in it that are not loopback's."""

    text: str
    addresses: tuple[str, ...]


def find(paths: Iterable[str] = _PATHS) -> Resolvers:
    """The first file that works from a network of its own; the last one where none does."""
    text = ""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        addresses = _addresses(text)
        if addresses:
            return Resolvers(text, addresses)
    return Resolvers(text, ())


def _addresses(text: str) -> tuple[str, ...]:
    found = []
    for words in (line.split() for line in text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if not address.is_loopback and not address.is_unspecified:
                found.append(str(address))
    return tuple(dict.fromkeys(found))
