"""A network of its own for a run, made by hand over netlink (``ip`` costs 2 ms for each spawn).

The process that will become the job leaves for a new network namespace and joins it to the host by
a veth pair. No bridge: the host routes the job's one address to its veth, which has no limit of
1,024 ports and leaves nothing behind: the pair, the address and the route die with the namespace.
The index of the host's side is made of the address, so the kernel itself refuses an address twice;
its name begins with the installation's id, and its group says whose job it is: the rules of the
host look at both (see ``firewall``).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable

from neuro.engines.sandbox import kernel

PREFIX = "nj-"  # of the names of the host's sides, whichever installation's
GROUPS = 1024  # of the host's sides: a pair of each in the rules takes 12 ms at the server's start
_GATEWAY = "169.254.1.1"  # no one's address: the job reaches the host's veth by its fixed MAC
_HOST_MAC = bytes.fromhex("eeeeeeeeeeee")
_FIRST_INDEX = 0x4E000000  # of the host's sides: chosen by us, so no question about it is needed

_NEWLINK, _SETLINK, _NEWADDR, _DELADDR, _NEWROUTE, _NEWNEIGH = 16, 19, 20, 21, 24, 28
_NEWRULE, _ERROR = 32, 2
_TO_TABLE, _UNREACHABLE, _MAIN = 1, 7, 254  # what a rule does, and the table of ordinary routes
_REQUEST_ACK, _CREATE, _CREATE_EXCL = 0x05, 0x500, 0x600
_UP = 1
_IFINFO = struct.Struct("=BxHiII")


def interfaces(installation: str) -> str:
    """What the names of the host's sides begin with that belong to an installation."""
    return f"{PREFIX}{installation}"


def enter_new(subnet: str, mtu: int, prefix: str) -> str:
    """Move the calling process into a new network; its IPv4 address. Raises OSError.

    The name of the host's side is ``prefix`` (see ``interfaces``) and four digits. It is in group
    0, whose members reach nobody, until ``join_group``.
    """
    with _netlink() as outside:
        kernel.unshare(kernel.CLONE_NEWNET)
        namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            address, index = _make_pair(outside, namespace, subnet, mtu, prefix)
        finally:
            os.close(namespace)
        _send(outside, [_route(address, 32, index, link=True)])
    with _netlink() as inside:
        _send(inside, _inside(address))
    open_low_ports(2**31 - 1)
    return address


def open_low_ports(last_group: int = 0) -> None:
    """Let everybody in the calling process's new network listen below port 1024, and ping.

    A run is root there without the capability for it. Containers elsewhere have the same. To be
    called where /proc is the machine's; ``last_group`` is the highest number of a group that the
    network's user namespace has. Raises OSError.
    """
    pinging = "ping_group_range", f"0 {last_group}"
    for name, text in (("ip_unprivileged_port_start", "0"), pinging):
        kernel.write(f"/proc/sys/net/ipv4/{name}", text)


def join_group(address: str, number: int) -> None:
    """Put the host's side of the run at ``address`` into a group: those in one reach each other.

    Takes 20 microseconds; to be called in the host's network. Raises OSError where it is gone.
    """
    with _netlink() as netlink:
        body = _IFINFO.pack(0, 0, _index(address), 0, 0)
        _send(netlink, [_message(_SETLINK, 0, body + _attribute(27, struct.pack("=I", number)))])


def exists(address: str) -> bool:
    """Whether a run has this address now; to be asked in the host's network."""
    try:
        socket.if_indextoname(_index(address))
    except (OSError, ValueError):  # also of what is no address
        return False
    return True


def _index(address: str) -> int:
    """The interface index of the host's side of the run at ``address``."""
    return _FIRST_INDEX + int.from_bytes(socket.inet_aton(address)[1:])


def host_address(installation: str, subnet: str) -> str:
    """The address under which the jobs of an installation reach this machine."""
    base = struct.unpack("!I", socket.inet_aton(subnet))[0]
    return socket.inet_ntoa(struct.pack("!I", base + 0xFF01 + int(installation, 16) % 0xFD))


def add_host_address(address: str) -> None:
    """Give this machine's loopback an address; does no harm twice. Raises OSError."""
    with _netlink() as netlink:
        _send(netlink, [_message(_NEWADDR, _CREATE, _loopback(address))])


def remove_host_address(address: str) -> None:
    """Take it away again. Raises OSError where it is not there."""
    with _netlink() as netlink:
        _send(netlink, [_message(_DELADDR, 0, _loopback(address))])


def is_own(address: str) -> bool:
    """Whether this machine has this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _loopback(address: str) -> bytes:
    raw = socket.inet_aton(address)
    header = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1)
    return header + _attribute(1, raw) + _attribute(2, raw)


def refuse(networks: Iterable[str], resolvers: Iterable[str]) -> None:
    """Let nothing in the calling process's network reach ``networks``, but ``resolvers``' port 53.

    For where the host has no rules for it. A rule of routing, because routes that are more exact
    than a network's would win over a route that refuses it. Raises OSError.
    """
    to_table = _attribute(15, struct.pack("=I", _MAIN))
    names = [
        _rule(address, 1, _TO_TABLE, to_table + _port(protocol, 53))
        for address in resolvers
        for protocol in (socket.IPPROTO_UDP, socket.IPPROTO_TCP)
    ]
    with _netlink() as inside:
        _send(inside, [*names, *(_rule(each, 2, _UNREACHABLE) for each in networks)])


def _rule(to: str, priority: int, action: int, more: bytes = b"") -> bytes:
    import ipaddress  # for runs with pasta alone: every sleeping run would hold it

    network = ipaddress.ip_network(to)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    table = _MAIN if action == _TO_TABLE else 0
    head = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, table, 0, 0, action, 0)
    body = head + _attribute(1, network.network_address.packed)
    return _message(
        _NEWRULE, _CREATE_EXCL, body + _attribute(6, struct.pack("=I", priority)) + more
    )


def _port(protocol: int, number: int) -> bytes:
    return _attribute(22, bytes([protocol])) + _attribute(24, struct.pack("=HH", number, number))


def raise_loopback() -> None:
    """Bring up the loopback of a new network. Raises OSError."""
    with _netlink() as inside:
        _send(inside, [_message(_NEWLINK, 0, _IFINFO.pack(0, 0, 1, _UP, _UP))])


def _make_pair(
    outside: socket.socket, namespace: int, subnet: str, mtu: int, prefix: str
) -> tuple[str, int]:
    base = struct.unpack("!I", socket.inet_aton(subnet))[0]
    for _ in range(64):
        number = int.from_bytes(os.urandom(2)) % 0xFEFF + 1  # 0xFF00 and up: host_address
        address = socket.inet_ntoa(struct.pack("!I", base + number))
        index = _index(address)
        alike = _attribute(4, struct.pack("=I", mtu)) + _ONE_QUEUE
        peer = _IFINFO.pack(0, 0, 2, 0, 0) + b"".join(
            (
                _attribute(3, b"eth0\0"),
                alike,
                _attribute(28, struct.pack("=I", namespace)),
            )
        )
        body = _IFINFO.pack(0, 0, index, _UP, _UP) + b"".join(
            (
                _attribute(3, f"{prefix}{number:04x}".encode() + b"\0"),
                alike,
                _attribute(1, _HOST_MAC),
                _attribute(18, _attribute(1, b"veth\0") + _attribute(2, _attribute(1, peer))),
            )
        )
        try:
            _send(outside, [_message(_NEWLINK, _CREATE_EXCL, body)])
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.EBUSY):
                continue
            raise
        return address, index
    raise OSError(errno.EADDRNOTAVAIL, f"no free address was found in {subnet}/16")


def _inside(address: str) -> list[bytes]:
    raw, gateway = socket.inet_aton(address), socket.inet_aton(_GATEWAY)
    neighbour = struct.pack("=BxxxiHBB", socket.AF_INET, 2, 0x80, 0, 0)  # NUD_PERMANENT
    return [
        _message(_NEWLINK, 0, _IFINFO.pack(0, 0, 1, _UP, _UP)),
        # Not at its creation: a veth refuses to go up before its other end exists.
        _message(_NEWLINK, 0, _IFINFO.pack(0, 0, 2, _UP, _UP)),
        _message(
            _NEWADDR,
            _CREATE_EXCL,
            struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 2)
            + _attribute(1, raw)
            + _attribute(2, raw),
        ),
        _message(
            _NEWNEIGH, _CREATE_EXCL, neighbour + _attribute(1, gateway) + _attribute(2, _HOST_MAC)
        ),
        _route(_GATEWAY, 32, 2, link=True),
        _route("0.0.0.0", 0, 2, gateway=_GATEWAY),
    ]


def _route(address: str, bits: int, index: int, *, link: bool = False, gateway: str = "") -> bytes:
    scope = 253 if link else 0
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, bits, 0, 0, 254, 3, scope, 1, 0)
    if bits:
        body += _attribute(1, socket.inet_aton(address))
    if gateway:
        body += _attribute(5, socket.inet_aton(gateway))
    return _message(_NEWROUTE, _CREATE_EXCL, body + _attribute(4, struct.pack("=i", index)))


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


# Of each direction. Where a pair has one per processor, the kernel takes all but one out of use at
# once, and waits for that twice while nobody else may change a network.
_ONE_QUEUE = _attribute(31, struct.pack("=I", 1)) + _attribute(32, struct.pack("=I", 1))


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 0, 0) + body


def _send(netlink: socket.socket, messages: list[bytes]) -> None:
    """Send all in one go and wait for as many answers. Raises OSError for the first refusal."""
    netlink.send(b"".join(messages))
    missing, refused = len(messages), 0
    while missing:
        data = netlink.recv(1 << 16)
        while len(data) >= 20:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _ERROR:
                missing -= 1
                refused = refused or -struct.unpack_from("=i", data, 16)[0]
            data = data[(length + 3) & ~3 :]
    if refused:
        raise OSError(refused, f"netlink: {os.strerror(refused)}")
