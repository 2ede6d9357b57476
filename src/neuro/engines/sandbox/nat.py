"""The host's part in the jobs' own networks, as root: rules, translation, forwarding."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from neuro.engines.sandbox import firewall, network
from neuro.engines.sandbox.firewall import MARKER, Fence, Hook, table
from neuro.engines.sandbox.network import PREFIX

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_CANDIDATES = tuple(f"10.{number}.0.0" for number in range(213, 230))
_LOCK = "/run/neuro-network.lock"
_IPV6 = "/proc/sys/net/ipv6"
_TIMEOUT = 10
# Another installation's rules, or anybody's that translate addresses (Docker's, libvirt's).
_OTHERS = re.compile(r"neuro[-_][0-9a-f]{8}\b|masquerade|[sd]nat\b", re.IGNORECASE)


class NoNetwork(Exception):
    """Jobs cannot have networks of their own here; the text says why and what to install."""


def choose_subnet() -> str:
    """A /16 that no route of the host touches. Raises NoNetwork."""
    taken = routes()
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


def set_up(fence: Fence) -> list[str]:
    """Fence the jobs' networks and let them out; what a person should know. Raises NoNetwork.

    Does no harm twice: the rules are replaced by what ``fence`` says, at once.
    """
    tools = _Tools.find()
    notices = [] if tools.nft is not None else [_lacks_nft(tools)]
    try:
        with _alone():
            if tools.nft is not None:
                _run([tools.nft, "-f", "-"], firewall.nft_rules(fence))
                _pass_policies(tools, fence)
            else:
                _set_iptables(tools, fence)
            _forward(tools)
            network.add_host_address(fence.host_address)
    except (OSError, subprocess.SubprocessError) as error:
        raise _cannot_set(error) from error
    return notices


def prove(fence: Fence) -> list[str]:
    """What ``set_up`` would say, with nothing changed. Raises NoNetwork."""
    tools = _Tools.find()
    if tools.nft is None:
        return [_lacks_nft(tools)]
    try:
        _run([tools.nft, "--check", "-f", "-"], firewall.nft_rules(fence))
    except (OSError, subprocess.SubprocessError) as error:
        raise _cannot_set(error) from error
    return []


def missing(fence: Fence) -> str | None:
    """What somebody took away of what ``set_up`` made, in words; None where all is there."""
    if _FORWARD.read_text("ascii").strip() != "1":
        return "this machine does not forward packets any more (net.ipv4.ip_forward)"
    if not network.is_own(fence.host_address):
        return f"this machine has lost the address {fence.host_address}"
    tools = _Tools.find()
    name = table(fence.installation)
    gone = f"the rules of the network ({name}) are gone"
    if tools.nft is not None:
        return None if _succeeds([tools.nft, "list", "table", "inet", name]) else gone
    if tools.iptables is None:
        return "neither nft nor iptables is installed any more"
    chain = firewall.chain(fence.installation, "forward")
    return None if _succeeds([tools.iptables, "-w", "-S", chain]) else gone


def _lacks_nft(tools: _Tools) -> str:
    if tools.iptables is None:
        raise NoNetwork("neither nft nor iptables is installed (apt-get install nftables)")
    return "jobs of one person do not reach each other: that needs nft (apt-get install nftables)"


def _cannot_set(error: Exception) -> NoNetwork:
    detail = getattr(error, "stderr", None) or str(error)
    return NoNetwork(f"the rules of this machine's network cannot be set: {detail}")


def tear_down(installation: str, subnet: str) -> None:
    """Take away all that ``set_up`` made, as far as it is there; forwarding ends with the last."""
    address = network.host_address(installation, subnet)
    tools = _Tools.find()
    with suppress(OSError, subprocess.SubprocessError), _alone():
        if tools.nft is not None:
            _run([tools.nft, "-f", "-"], firewall.nft_removal(installation))
        for tool in (tools.iptables, tools.ip6tables):
            if tool is not None:
                _remove_iptables(tool, installation)
        in_nft = _run([tools.nft, "-t", "list", "ruleset"]) if tools.nft is not None else ""
        in_iptables = _run([f"{tools.iptables}-save"]) if tools.iptables is not None else ""
        # There are few such addresses: another installation may have the same.
        if not re.search(rf"\b{re.escape(address)}\b", in_nft + in_iptables):
            with suppress(OSError):
                network.remove_host_address(address)
        _stop_forwarding(tools, in_nft, in_iptables)


# Forwarding. That it was off before us is told by a table (or chain) without rules: the kernel
# forgets it with all the rest at a reboot, and keeps it where the server is killed.


def _forward(tools: _Tools) -> None:
    if _FORWARD.read_text("ascii").strip() == "1":
        return
    if tools.nft is not None:
        _run([tools.nft, "-f", "-"], firewall.nft_marker())
    elif tools.iptables is not None and not _succeeds([tools.iptables, "-w", "-S", MARKER]):
        _run([tools.iptables, "-w", "-N", MARKER])
    _FORWARD.write_text("1", "ascii")


def _stop_forwarding(tools: _Tools, in_nft: str, in_iptables: str) -> None:
    """Put forwarding back if it was off before us and nobody else's rules count on it."""
    if MARKER not in in_nft + in_iptables or _OTHERS.search(in_nft + in_iptables):
        return
    _FORWARD.write_text("0", "ascii")
    if tools.nft is not None:
        _run([tools.nft, "-f", "-"], firewall.nft_marker_removal())
    if tools.iptables is not None and f":{MARKER} " in in_iptables:
        _run([tools.iptables, "-w", "-X", MARKER])


# iptables.


def _pass_policies(tools: _Tools, fence: Fence) -> None:
    """Where nft has our rules: let iptables' policies not drop what these let through."""
    if tools.iptables is None:
        return
    policies = _run([tools.iptables, "-w", "-S"])
    if firewall.chain(fence.installation, "forward") in policies:  # nft was not installed before
        for tool in (tools.iptables, tools.ip6tables):
            if tool is not None:
                _remove_iptables(tool, fence.installation)
    for hook in firewall.iptables_passage(fence):
        if f"-P {hook.chain} DROP" in policies:
            _hook(tools.iptables, fence.installation, hook)


def _set_iptables(tools: _Tools, fence: Fence) -> None:
    assert tools.iptables is not None
    drops = "-P FORWARD DROP" in _run([tools.iptables, "-w", "-S", "FORWARD"])
    rules = firewall.iptables_rules(fence, let_through=drops)
    _run([f"{tools.iptables}-restore", "-w", "--noflush"], rules)
    for hook in firewall.iptables_hooks(fence):
        _hook(tools.iptables, fence.installation, hook)
    if tools.ip6tables is not None and os.path.exists(_IPV6):
        _run([f"{tools.ip6tables}-restore", "-w", "--noflush"], firewall.ip6tables_rules(fence))
        for hook in firewall.ip6tables_hooks(fence.installation):
            _hook(tools.ip6tables, fence.installation, hook)


def _hook(tool: str, installation: str, hook: Hook) -> None:
    """Put a rule first, if it is not there. Its comment says whose it is."""
    rule = [*hook.rule, "-m", "comment", "--comment", table(installation)]
    if not _succeeds([tool, "-w", "-t", hook.table, "-C", hook.chain, *rule]):
        _run([tool, "-w", "-t", hook.table, "-I", hook.chain, *rule])


def _remove_iptables(tool: str, installation: str) -> None:
    """Delete an installation's rules and chains from all tables of iptables or ip6tables."""
    name, chains = "", []
    for line in _run([f"{tool}-save"]).splitlines():
        words = shlex.split(line)
        if line.startswith("*"):
            name = line[1:]
        elif line.startswith(f":{firewall.chain(installation, '')}"):
            chains.append((name, words[0][1:]))
        elif line.startswith("-A") and table(installation) in words:
            _run([tool, "-w", "-t", name, "-D", *words[1:]])
    for name, chain in chains:
        _run([tool, "-w", "-t", name, "-F", chain])
        _run([tool, "-w", "-t", name, "-X", chain])


@dataclass(frozen=True)
class _Tools:
    """The paths of what is installed."""

    nft: str | None
    iptables: str | None
    ip6tables: str | None

    @classmethod
    def find(cls) -> _Tools:
        return cls(*(shutil.which(name) for name in ("nft", "iptables", "ip6tables")))


@contextmanager
def _alone() -> Iterator[None]:
    """No other installation on this machine changes the rules meanwhile."""
    with open(_LOCK, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def routes() -> list[tuple[int, int]]:
    """The host's routes as (network, mask), but the default and the jobs' own."""
    found = []
    for line in Path("/proc/net/route").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        mask = socket.ntohl(int(fields[7], 16))
        if mask and not fields[0].startswith(PREFIX):
            found.append((socket.ntohl(int(fields[1], 16)), mask))
    return found


def _run(command: list[str], text: str | None = None) -> str:
    """What it prints. Raises subprocess.SubprocessError."""
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=True
    ).stdout


def _succeeds(command: list[str]) -> bool:
    """Whether it exits with 0. Raises TimeoutError where it takes too long to know."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command[0]} does not answer") from error
    return done.returncode == 0
