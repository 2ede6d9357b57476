"""Connections to registries: by which way, and never to what only this machine should reach.

Whoever names an image names a registry, and a registry sends us on to any address. Behind addresses
of this machine and of its link are services that trust whoever can reach them, such as a cloud's
metadata. An address is looked at after its name is resolved, so no name leads there either.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from neuro.engines.images.faults import ImageFault, refused, shown

_METADATA = frozenset({"fd00:ec2::254", "100.100.100.200"})  # of clouds, outside of their links


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


def is_own(address: str) -> bool:
    """Whether an IP address is one of this machine, of its link, or of nobody in particular.

    >>> [is_own(one) for one in ("127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0")]
    [True, True, True, True]
    >>> [is_own(one) for one in ("10.0.0.1", "192.0.2.1", "2001:db8::1")]
    [False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    special = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
    return special or str(ip) in _METADATA


def connection_to(
    place: Place, seconds: float, local: Collection[str]
) -> http.client.HTTPConnection:
    """A connection that is not open yet; ``local`` may have addresses of this machine.

    Opening it raises ImageFault where it leads to such an address, and OSError.
    """
    may = place.name in local
    if place.scheme == "http":
        return _guarded(http.client.HTTPConnection(place.host, place.port, timeout=seconds), may)
    context = ssl.create_default_context()
    proxy = getproxies().get("https", "")
    if not proxy or proxy_bypass(place.host):
        return _guarded(
            http.client.HTTPSConnection(place.host, place.port, timeout=seconds, context=context),
            may,
        )
    if not may:
        _check_name(place)  # who resolves it is the proxy, which has no addresses of ours
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


def _guarded(connection: http.client.HTTPConnection, may: bool) -> http.client.HTTPConnection:
    """The connection, which looks at addresses before it sends anything there."""

    def connect(address: tuple[str, int], *rest: Any) -> socket.socket:
        host, port = address
        error: OSError | None = None
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        own = [] if may else [one for *_, one in found if is_own(str(one[0]))]
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


def _check_name(place: Place) -> None:
    try:
        own = is_own(place.host)
    except ValueError:  # it is a name
        own = place.host == "localhost" or place.host.endswith(".localhost")
    if own:
        raise _refusal(place.host)


def _refusal(host: str) -> ImageFault:
    return refused(
        f"Images are not pulled from {shown(host)}: that is an address of the server's own machine."
        " Whoever runs the server can allow a registry there with `images_insecure` in its"
        " settings."
    )
