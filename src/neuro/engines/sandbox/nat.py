"""What lets the jobs' own networks out: forwarding and address translation on the host, as root."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from neuro.engines.sandbox import network
from neuro.engines.sandbox.network import PREFIX

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_CANDIDATES = tuple(f"10.{number}.0.0" for number in range(213, 230))
_TIMEOUT = 10


class NoNetwork(Exception):
    """Jobs cannot have networks of their own here; the sentence says what to install."""


def choose_subnet() -> str:
    """A /16 that no route of the host touches. Raises NoNetwork."""
    taken = _routes()
    for candidate in _CANDIDATES:
        base = struct.unpack("!I", socket.inet_aton(candidate))[0]
        if not any(base & mask == other & 0xFFFF0000 & mask for other, mask in taken):
            return candidate
    raise NoNetwork("every network that jobs could use is taken by a route of this machine")


def default_mtu() -> int:
    """The MTU of the way out, so that no packet of a job is too long for it."""
    try:
        for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1] == fields[7] == "00000000":
                return int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text("ascii"))
    except (OSError, ValueError):
        pass
    return 1500


def set_up(installation: str, subnet: str) -> None:
    """Let jobs of ``subnet`` out; does no harm twice. Raises NoNetwork."""
    nft, iptables = shutil.which("nft"), shutil.which("iptables")
    if nft is None and iptables is None:
        raise NoNetwork(
            "jobs share the host's network, because neither nft nor iptables is installed: install"
            " the package nftables"
        )
    try:
        if nft is not None:
            _run([nft, "-f", "-"], _rules(installation, subnet))
        elif iptables is not None:
            _masquerade(iptables, subnet)
        if iptables is not None:
            _accept_forwarded(iptables)
        if _FORWARD.read_text("ascii").strip() != "1":
            _FORWARD.write_text("1", "ascii")
        network.add_host_address(network.host_address(installation, subnet))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        raise NoNetwork(
            f"jobs share the host's network, because its translation rules cannot be set: {detail}"
        ) from error


def tear_down(installation: str, subnet: str) -> None:
    """Take the translation rules away again, as far as they are there."""
    nft, iptables = shutil.which("nft"), shutil.which("iptables")
    address = network.host_address(installation, subnet)
    # There are few such addresses: another installation may have the same, and be at work.
    with suppress(OSError):
        if not network.is_listened_on(address):
            network.remove_host_address(address)
    try:
        if nft is not None:
            _run([nft, "delete", "table", "ip", _table(installation)])
        elif iptables is not None:
            _run([iptables, "-w", "-t", "nat", "-D", "POSTROUTING", *_masquerade_rule(subnet)])
    except (OSError, subprocess.SubprocessError):
        pass


def _table(installation: str) -> str:
    return f"neuro_{installation}"


def _rules(installation: str, subnet: str) -> str:
    table = _table(installation)
    return (
        f"table ip {table}\n"
        f"delete table ip {table}\n"
        f"table ip {table} {{\n"
        "  chain out {\n"
        "    type nat hook postrouting priority 100; policy accept;\n"
        f'    ip saddr {subnet}/16 oifname != "{PREFIX}*" masquerade\n'
        "  }\n"
        "}\n"
    )


def _masquerade_rule(subnet: str) -> list[str]:
    return ["-s", f"{subnet}/16", "!", "-o", f"{PREFIX}+", "-j", "MASQUERADE"]


def _masquerade(iptables: str, subnet: str) -> None:
    rule = _masquerade_rule(subnet)
    if not _succeeds([iptables, "-w", "-t", "nat", "-C", "POSTROUTING", *rule]):
        _run([iptables, "-w", "-t", "nat", "-A", "POSTROUTING", *rule])


def _accept_forwarded(iptables: str) -> None:
    """Docker sets the policy of FORWARD to DROP, which no accepting table of ours can undo."""
    if "-P FORWARD DROP" not in _run([iptables, "-w", "-S", "FORWARD"]):
        return
    for direction in ("-i", "-o"):
        rule = [direction, f"{PREFIX}+", "-j", "ACCEPT"]
        if not _succeeds([iptables, "-w", "-C", "FORWARD", *rule]):
            _run([iptables, "-w", "-I", "FORWARD", *rule])


def _routes() -> list[tuple[int, int]]:
    """The host's routes as (network, mask), but the default and the jobs' own."""
    found = []
    for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        mask = socket.ntohl(int(fields[7], 16))
        if mask and not fields[0].startswith(PREFIX):
            found.append((socket.ntohl(int(fields[1], 16)), mask))
    return found


def _run(command: list[str], text: str | None = None) -> str:
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=True
    ).stdout


def _succeeds(command: list[str]) -> bool:
    return (
        subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False).returncode == 0
    )
