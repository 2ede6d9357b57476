"""The rules of the host that fence the jobs' networks, as text for ``nft`` and for ``iptables``.

What they say, for IPv4 and IPv6 alike:

- a job reaches another job only where both are in the same group (see ``neighbours``);
- nobody else reaches a job, but by a connection that the job itself began;
- of the host, jobs reach the API's address and port, and the resolver where the host is one;
- jobs reach no link-local or metadata address, and private networks only where the settings say so;
- a packet with an address that is not its job's own is dropped;
- the jobs of one group have at most ``flows`` connections at a time, as far as the host follows
  them: its table of connections is everybody's.

All names hold the installation's id, so that installations on one host do not touch each other.
The one exception is ``MARKER``: it is there as long as forwarding is on because of us.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from neuro.engines.sandbox.network import GROUPS, PREFIX, interfaces

MARKER = "neuro_forwarding"  # a table of nft, or a chain of iptables
# Link-local networks, and where clouds keep credentials outside of them: Azure, Alibaba, Oracle;
# in IPv6 Amazon, Google, Scaleway.
METADATA = ("169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192")
METADATA6 = ("fe80::/10", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42")
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
PRIVATE6 = ("fc00::/7",)


@dataclass(frozen=True)
class Fence:
    """What the rules of one installation depend on.

    ``port`` is the API's at ``host_address`` (0: none is open to jobs). ``private`` says whether
    jobs may reach private networks. ``resolvers`` are the addresses that answer their names,
    ``flows`` the connections that the jobs of one person may have.
    """

    installation: str
    subnet: str
    host_address: str
    port: int = 0
    private: bool = True
    resolvers: tuple[str, ...] = ()
    flows: int = 32768


def table(installation: str) -> str:
    """The name of an installation's table of nft."""
    return f"neuro_{installation}"


# nft.

_REJECT = "reject with icmpx type admin-prohibited"


def nft_rules(fence: Fence) -> str:
    """A script for ``nft -f`` that puts the whole table in the place of what was there, at once."""
    ours = f'"{interfaces(fence.installation)}*"'
    # Each chain looks at the interface first: packets of others pay for one comparison.
    return f"""{nft_removal(fence.installation)}
table inet {table(fence.installation)} {{
  set neighbours {{
    type devgroup . devgroup
    elements = {{ {", ".join(f"{n} . {n}" for n in range(1, GROUPS))} }}
  }}
  set followed {{
    type devgroup
    flags dynamic
    size {GROUPS}
  }}
  chain arriving {{
    type filter hook prerouting priority -150; policy accept;
    iifname {ours} fib saddr . iif oif missing drop
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname {ours} goto to_host
    ip daddr {fence.host_address} iifname != "{PREFIX}*" iif != "lo" drop
  }}
  chain to_host {{
    ct state established,related accept
    ct state new {_few(fence)}
{_lines(_api(fence))}{_lines(_names(fence))}    {_REJECT}
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    oifname {ours} goto to_job
    iifname {ours} goto from_job
  }}
  chain to_job {{
    ct state established,related accept
    iifname {ours} ct state new {_few(fence)}
    iifname {ours} meta iifgroup . meta oifgroup @neighbours accept
    iifname "{PREFIX}*" {_REJECT}
    drop
  }}
  chain from_job {{
    ct state established,related accept
    oifname "{PREFIX}*" {_REJECT}
    ip daddr {fence.subnet}/16 {_REJECT}
    ct status dnat {_REJECT}
    ct state new {_few(fence)}
{_lines(_names(fence))}{_lines(_far(fence))}  }}
  chain out {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {fence.subnet}/16 oifname != "{PREFIX}*" masquerade
  }}
}}
"""


def nft_marker() -> str:
    """A script that makes the marker; does no harm twice."""
    return f"table inet {MARKER} {{\n}}\n"


def nft_marker_removal() -> str:
    """A script that removes the marker, whether it is there or not."""
    return _removal(f"table inet {MARKER}")


def nft_removal(installation: str) -> str:
    """A script that removes an installation's tables, whether they are there or not.

    The one for IPv4 alone is what earlier versions had.
    """
    return "".join(_removal(f"table {family} {table(installation)}") for family in ("ip", "inet"))


def _removal(name: str) -> str:
    return f"{name}\ndelete {name}\n"


def _lines(rules: Iterable[str]) -> str:
    return "".join(f"    {rule}\n" for rule in rules)


def _few(fence: Fence) -> str:
    return f"add @followed {{ meta iifgroup ct count over {fence.flows} }} {_REJECT}"


def _api(fence: Fence) -> list[str]:
    return [f"ip daddr {fence.host_address} tcp dport {fence.port} accept"] if fence.port else []


def _names(fence: Fence) -> list[str]:
    return [
        f"{_family(address)} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept"
        for address in fence.resolvers
    ]


def _far(fence: Fence) -> list[str]:
    return [f"{_family(each)} daddr {each} {_REJECT}" for each in refused(private=fence.private)]


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def refused(*, private: bool) -> tuple[str, ...]:
    """What jobs may not reach; ``private`` is whether they may reach private networks."""
    return (*METADATA, *METADATA6, *(() if private else (*PRIVATE, *PRIVATE6)))


# iptables, where nft is not installed: the same, but that no job reaches another.


@dataclass(frozen=True)
class Hook:
    """One rule in a chain that is not ours."""

    table: str
    chain: str
    rule: tuple[str, ...]


def chain(installation: str, of: str) -> str:
    """The name of an installation's chain for "in" or "forward"."""
    return f"neuro-{installation}-{of}"


def iptables_rules(fence: Fence, *, let_through: bool) -> str:
    """Text for ``iptables-restore --noflush``: the chains of an installation, whole.

    ``let_through`` what no rule refuses, because the policy of FORWARD is to drop it (Docker's).
    """
    into, through = chain(fence.installation, "in"), chain(fence.installation, "forward")
    ours = f"{interfaces(fence.installation)}+"
    reject = "-j REJECT --reject-with icmp-admin-prohibited"
    names = [
        f"-i {ours} -d {address} -p {protocol} --dport 53 -j ACCEPT"
        for address in fence.resolvers
        if ":" not in address
        for protocol in ("udp", "tcp")
    ]
    going = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    few = f"-m connlimit --connlimit-above {fence.flows} --connlimit-mask 32 --connlimit-saddr"
    few = f"-i {ours} -m conntrack --ctstate NEW {few} {reject}"
    host = fence.host_address
    api = [f"-i {ours} -d {host} -p tcp --dport {fence.port} -j ACCEPT"] if fence.port else []
    rules = {
        into: [
            f"-i {ours} {going}",
            few,
            *api,
            *names,
            f"-i {ours} {reject}",
            f"-d {host} -i lo -j RETURN",
            f"-d {host} -i {PREFIX}+ -j RETURN",
            f"-d {host} -j DROP",
        ],
        through: [
            f"-o {ours} {going}",
            f"-o {ours} -i {PREFIX}+ {reject}",
            f"-o {ours} -j DROP",
            f"-i {ours} {going}",
            f"-i {ours} -o {PREFIX}+ {reject}",
            f"-i {ours} -d {fence.subnet}/16 {reject}",
            f"-i {ours} -m conntrack --ctstate DNAT {reject}",
            few,
            *names,
            *(
                f"-i {ours} -d {each} {reject}"
                for each in refused(private=fence.private)
                if ":" not in each
            ),
            *([f"-i {ours} -j ACCEPT"] if let_through else []),
        ],
    }
    return _restore("filter", rules)


def ip6tables_rules(fence: Fence) -> str:
    """Text for ``ip6tables-restore --noflush``: jobs have link-local addresses only; none pass."""
    ours = f"{interfaces(fence.installation)}+"
    rules = {
        chain(fence.installation, "in"): [f"-i {ours} -j DROP"],
        chain(fence.installation, "forward"): [f"-i {ours} -j DROP", f"-o {ours} -j DROP"],
    }
    return _restore("filter", rules)


def iptables_hooks(fence: Fence) -> list[Hook]:
    """Rules in iptables' own chains: ways to ours, translation, refusal of false addresses."""
    ours = f"{interfaces(fence.installation)}+"
    out = ("-s", f"{fence.subnet}/16", "!", "-o", f"{PREFIX}+", "-j", "MASQUERADE")
    spoofed = ("-i", ours, "-m", "rpfilter", "--invert", "-j", "DROP")
    return [
        Hook("nat", "POSTROUTING", out),
        Hook("mangle", "PREROUTING", spoofed),
        *ip6tables_hooks(fence.installation),
    ]


def ip6tables_hooks(installation: str) -> list[Hook]:
    """Rules in ip6tables' own chains."""
    return [
        Hook("filter", "INPUT", ("-j", chain(installation, "in"))),
        Hook("filter", "FORWARD", ("-j", chain(installation, "forward"))),
    ]


def iptables_passage(fence: Fence) -> list[Hook]:
    """Rules that let through what nft's rules let through, where iptables' policy drops it.

    Docker and ufw set such policies, and no table of nft's can undo them.
    """
    ours = f"{interfaces(fence.installation)}+"
    rules = [Hook("filter", "FORWARD", (side, ours, "-j", "ACCEPT")) for side in ("-i", "-o")]
    if fence.port:
        to_api = ("-d", fence.host_address, "-p", "tcp", "--dport", str(fence.port))
        rules.append(Hook("filter", "INPUT", ("-i", ours, *to_api, "-j", "ACCEPT")))
    return rules


def _restore(name: str, chains: dict[str, list[str]]) -> str:
    heads = [f":{each} - [0:0]" for each in chains]
    rules = [f"-A {each} {rule}" for each, lines in chains.items() for rule in lines]
    return "\n".join([f"*{name}", *heads, *rules, "COMMIT"]) + "\n"
