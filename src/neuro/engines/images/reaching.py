"""Connections for what other people name, and never to what only this machine should reach.

Whoever names an image names a registry, whoever writes a Dockerfile writes URLs, and both may send
us on to any address. Behind addresses of this machine and of its link are services that trust
whoever can reach them, such as a cloud's metadata. An address is looked at after its name is
resolved, so no name leads there either.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from neuro.engines.images.faults import ImageFault, refused, shown
from neuro.engines.images.reach import Reach

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_OF_JOBS = ipaddress.ip_network("10.0.0.0/8")  # that have networks of their own
_NAT64, _6TO4 = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16")
_TRIE, _IPV6 = "/proc/net/fib_trie", "/proc/net/if_inet6"


@dataclass(frozen=True)
class Place:
    """A scheme, host and port; who has all three is who credentials are for."""

    scheme: str
    host: str
    port: int | None

    @property
    def name(self) -> str:
        """As people write it in an image's name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def place_of(url: str) -> Place:
    """Where a URL leads; empty where it leads nowhere."""
    try:
        parts = urlsplit(url)
        return Place(parts.scheme, parts.hostname or "", parts.port)
    except ValueError:
        return Place("", "", None)


def _meant_by(address: str) -> tuple[IPAddress, ...]:
    """An address, and the IPv4 address that a gateway would make of it. Raises ValueError."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip in _NAT64:
        return ip, ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip in _6TO4:
        return ip, ipaddress.IPv4Address(int(ip) >> 80 & 0xFFFF_FFFF)
    return (ip,)


def is_own(address: str) -> bool:
    """Whether an IP address is one of this machine, of its link, or of nobody in particular.

    Those of the machine's jobs are its own too, and where clouds have metadata.

    >>> [is_own(one) for one in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0")]
    [True, True, True, True]
    >>> [is_own(one) for one in ("64:ff9b::169.254.169.254", "2002:7f00:1::")]
    [True, True]
    >>> [is_own(one) for one in ("198.51.100.1", "192.0.2.1", "2001:db8::1")]
    [False, False, False]
    """
    return any(map(_is_own, _meant_by(address)))


def _is_own(ip: IPAddress) -> bool:
    special = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
    if special or any(ip in one for one in _metadata()):
        return True
    from neuro.engines.sandbox import network  # a build at the platform's registry needs none of it

    return (ip in _OF_JOBS and network.exists(str(ip))) or ip in _addresses()


@cache
def _metadata() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Where clouds tell their machines what they are."""
    from neuro.engines.sandbox.firewall import METADATA, METADATA6

    return tuple(map(ipaddress.ip_network, (*METADATA, *METADATA6)))


def _addresses() -> set[IPAddress]:
    """All that this machine's interfaces have; none of a kind that is not known here."""
    found: set[IPAddress] = set()
    with suppress(OSError), open(_TRIE, encoding="ascii") as file:
        last = ""
        for line in file:
            words = line.split()
            if words[:1] == ["|--"]:
                last = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"]:
                found.add(ipaddress.IPv4Address(last))
    with suppress(OSError), open(_IPV6, encoding="ascii") as file:
        found.update(ipaddress.IPv6Address(int(line.split()[0], 16)) for line in file)
    return found


def _is_closed(address: str, closed: Collection[str]) -> bool:
    """Whether images come from nowhere there: it is our own, or in one of the networks."""
    networks = [ipaddress.ip_network(one) for one in closed]
    meant = _meant_by(address)
    return any(map(_is_own, meant)) or any(ip in one for ip in meant for one in networks)


def connection_to(place: Place, seconds: float, reach: Reach) -> http.client.HTTPConnection:
    """A connection that is not open yet. Opening it raises OSError.

    It, or opening it, raises ImageFault for a place that is beyond ``reach``.
    """
    if place.scheme == "http":
        plain = http.client.HTTPConnection(place.host, place.port, timeout=seconds)
        return guard(plain, place, reach)
    context = ssl.create_default_context()
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get("https", "")
    if not proxy or proxy_bypass(place.host):
        direct = http.client.HTTPSConnection(
            place.host, place.port, timeout=seconds, context=context
        )
        return guard(direct, place, reach)
    check_name(place, reach)
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port or 3128, timeout=seconds, context=context
    )
    headers = {}
    if parts.username:
        pair = f"{parts.username}:{parts.password or ''}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    connection.set_tunnel(place.host, place.port or 443, headers)
    return connection


def guard(
    connection: http.client.HTTPConnection, place: Place, reach: Reach
) -> http.client.HTTPConnection:
    """A connection to the place, which now looks at addresses before it sends anything there.

    Opening it raises ImageFault where ``reach`` ends.
    """
    may = place.name in reach.local

    def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
        host, port = address
        error: OSError | None = None
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        own = [] if may else [one for *_, one in found if _is_closed(str(one[0]), reach.closed)]
        if own:
            raise _refusal(host)
        for *_, one in found:
            try:
                return socket.create_connection((str(one[0]), port), *rest)
            except OSError as failed:
                error = failed
        raise error or OSError(f"{host} has no address")

    # What http.client opens all of its sockets with.
    connection._create_connection = connect  # type: ignore[attr-defined]
    return connection


def check_name(place: Place, reach: Reach) -> None:
    """Raises ImageFault for a place that a proxy is not asked to go to.

    The proxy resolves its name, and it has no addresses of ours.
    """
    if place.name in reach.local:
        return
    try:
        own = _is_closed(place.host, reach.closed)
    except ValueError:  # it is a name
        own = place.host == "localhost" or place.host.endswith(".localhost")
    if own:
        raise _refusal(place.host)


def _refusal(host: str) -> ImageFault:
    return refused(
        f"Images and builds do not use {shown(host)}: that is an address of the server's own"
        " machine, or of a network that is closed to jobs. Whoever runs the server can allow a"
        " registry there with `images_private` in its settings, or with `images_insecure` if it"
        " speaks http."
    )
