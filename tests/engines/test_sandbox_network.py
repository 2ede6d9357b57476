"""The fence around jobs' networks, tried from each side, in namespaces apart from the machine's.

Each test that says "refused" has a brother, or a line, that shows the same way open to those who
may take it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.engines.base import EngineFault
from neuro.engines.sandbox import (
    SandboxEngine,
    SandboxSettings,
    firewall,
    interpreter,
    machine,
    nat,
    network,
    resolving,
)
from tests.engines.harness import Runs
from tests.engines.lab import HOST, LAN, Lab, fenced, make_fence

METADATA = "169.254.169.254"
OTHER = "4d5e6f70"  # another installation

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes networks"),
]


@pytest.fixture(params=["", "nft"], ids=["nft", "iptables"])
def missing(request: pytest.FixtureRequest) -> str:
    """The program that the host lacks: the fence is the same with either."""
    return str(request.param)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


async def test_a_run_reaches_the_api_at_the_engines_address(folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as api, socket.create_server(("0.0.0.0", 0)) as other:
        engine = SandboxEngine(folder, SandboxSettings(host_port=api.getsockname()[1]))
        await engine.open()
        await engine.adopt([])
        runs = Runs(engine)
        host = engine.host_address
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

        reached = await runs.run("python3", "-c", script, host, str(api.getsockname()[1]))
        refused = await runs.run("python3", "-c", script, host, str(other.getsockname()[1]))

        assert (reached.code, refused.code) == (0, 1)
        await runs.close()


async def test_a_network_is_chosen_anew_where_a_person_removed_it_from_the_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = folder / "installation"
    first = SandboxEngine(folder, SandboxSettings())
    await first.open()
    await first.adopt([])
    await first.close()
    before = json.loads(record.read_text())
    record.write_text(json.dumps({"id": before["id"]}))
    monkeypatch.setattr(nat, "routes", lambda: [(_number(before["subnet"]), 0xFFFF0000)])

    second = SandboxEngine(folder, SandboxSettings())
    await second.open()
    await second.adopt([])
    runs = Runs(second)
    done = await runs.run("true")
    await runs.close()

    after = json.loads(record.read_text())
    assert after["id"] == before["id"]
    assert after["subnet"] not in ("", before["subnet"])
    assert done.code == 0


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address))


async def test_without_means_for_networks_the_engine_does_not_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    folder.mkdir()

    with pytest.raises(EngineFault, match="apt-get install nftables") as refused:
        machine.examine(str(folder), SandboxSettings())
    assert "[network]\n  shared = true" in str(refused.value)


def test_a_fence_that_cannot_be_set_whole_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nft").symlink_to(str(shutil.which("nft")))
    (programs / "iptables").write_text("#!/bin/sh\nexit 1\n")  # asked once nft has the rules
    (programs / "iptables").chmod(0o755)
    folder.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    with pytest.raises(EngineFault, match="cannot be set"):
        machine.examine(str(folder), SandboxSettings())

    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert firewall.table(machine.installation(str(folder))["id"]) not in listed.stdout


async def test_a_network_is_shared_where_the_settings_say_so(folder: Path) -> None:
    engine = SandboxEngine(folder, SandboxSettings(network="shared"))

    await engine.open()
    await engine.adopt([])

    (notice,) = engine.notices
    assert "as server.toml says" in notice
    assert "reaches the ports of all others" in notice
    assert engine.host_address == "127.0.0.1"
    await engine.close()


# Jobs and jobs.


def test_jobs_of_two_people_do_not_reach_each_other(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    mine, theirs, nobodys, another = (lab.job(fence, group) for group in (1, 2, 0, 0))

    port = lab.listen_in(theirs)
    lab.listen_in(nobodys, port=port)

    for asker, asked in ((mine, theirs), (mine, nobodys), (theirs, nobodys), (another, nobodys)):
        assert lab.refuses(asker, asked.address, port)
        assert lab.refuses(asker, asked.address, port, "udp")


def test_jobs_of_one_person_reach_each_other() -> None:
    with fenced() as (lab, fence):
        one, other = lab.job(fence, network.GROUPS - 1), lab.job(fence, network.GROUPS - 1)
        port = lab.listen_in(other)

        assert lab.ask(one, other.address, port) == one.address
        assert lab.ask(one, other.address, port, "udp") == one.address


def test_without_nft_a_person_is_told_that_own_jobs_do_not_meet(lab: Lab) -> None:
    fence = make_fence()

    (notice,) = lab.set_up(fence, without="nft")

    assert "nftables" in notice
    one, other = lab.job(fence, 1), lab.job(fence, 1)
    assert lab.refuses(one, other.address, lab.listen_in(other))


def test_jobs_of_two_installations_do_not_reach_each_other() -> None:
    with fenced() as (lab, fence):
        second = make_fence(OTHER)
        lab.set_up(second)
        one, other = lab.job(fence, 1), lab.job(second, 1)
        third = lab.job(second, 1)
        port = lab.listen_in(other)

        assert lab.refuses(one, other.address, port)
        assert lab.ask(third, other.address, port) == third.address


# Jobs and the world.


def test_a_job_reaches_the_world_and_is_not_reached_from_it(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    job = lab.job(fence, 1)
    inside, outside = lab.listen_in(job), lab.listen_on_lan("0.0.0.0")

    assert lab.ask(job, LAN, outside) == HOST
    assert lab.ask(job, LAN, outside, "udp") == HOST
    assert lab.refuses("lan", job.address, inside)
    assert lab.refuses("lan", job.address, inside, "udp")
    assert not lab.refuses("host", job.address, inside)


def test_a_policy_of_iptables_that_drops_does_not_stop_jobs(lab: Lab, missing: str) -> None:
    for chain in ("FORWARD", "INPUT"):
        lab.on_host("iptables", "-P", chain, "DROP")
    fence = make_fence()
    lab.set_up(fence, without=missing)
    job, other = lab.job(fence), lab.job(fence)
    lab.listen_on_host(fence.host_address, fence.port)

    lab.on_host(
        "iptables",
        "-A",
        "FORWARD",
        *("-m", "conntrack"),
        *("--ctstate", "ESTABLISHED"),
        *("-j", "ACCEPT"),
    )
    assert lab.ask(job, LAN, lab.listen_on_lan("0.0.0.0")) == HOST
    assert lab.ask(job, fence.host_address, fence.port) == job.address
    assert lab.refuses(job, other.address, lab.listen_in(other))
    assert lab.refuses("lan", job.address, lab.listen_in(job))


@pytest.mark.parametrize("address", [METADATA, "169.254.1.1", "100.100.100.200", "168.63.129.16"])
def test_metadata_is_not_reached(lab: Lab, missing: str, address: str) -> None:
    lab.on_lan("ip", "address", "add", f"{address}/32", "dev", "lan0")
    lab.on_host("ip", "route", "add", f"{address}/32", "via", LAN)
    port = lab.listen_on_lan("0.0.0.0")
    fence = make_fence()
    lab.set_up(fence, without=missing)

    assert lab.ask("host", address, port) == HOST
    assert lab.refuses(lab.job(fence, 1), address, port)


def test_metadata_on_the_host_itself_is_not_reached(lab: Lab, missing: str) -> None:
    lab.on_host("ip", "address", "add", f"{METADATA}/32", "dev", "lo")
    port = lab.listen_on_host(METADATA)
    fence = make_fence()
    lab.set_up(fence, without=missing)

    assert lab.refuses(lab.job(fence, 1), METADATA, port)


@pytest.mark.parametrize("address", ["10.1.2.3", "172.20.1.1", "192.168.7.7", "100.64.3.3"])
def test_private_networks_are_reached_where_the_settings_say_so(
    lab: Lab, missing: str, address: str
) -> None:
    lab.on_lan("ip", "address", "add", f"{address}/32", "dev", "lan0")
    lab.on_host("ip", "route", "add", f"{address}/32", "via", LAN)
    port, resolver = lab.listen_on_lan(address), lab.listen_on_lan(address, 53)

    lab.set_up(make_fence(), without=missing)
    assert lab.ask(lab.job(make_fence()), address, port) == HOST

    fence = make_fence(private=False)
    lab.set_up(fence, without=missing)
    job = lab.job(fence)
    assert lab.refuses(job, address, port)
    assert lab.refuses(job, address, resolver, "udp")
    assert lab.ask(job, LAN, lab.listen_on_lan(LAN)) == HOST

    lab.set_up(make_fence(private=False, resolvers=(address,)), without=missing)
    assert lab.ask(job, address, resolver, "udp") == HOST
    assert lab.refuses(job, address, port)


# Jobs and the host.


def test_of_the_host_only_the_api_is_reached(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    job = lab.job(fence, 1)
    service = lab.listen_on_host("0.0.0.0")
    lab.listen_on_host(fence.host_address, fence.port)

    for address in (HOST, fence.host_address, "10.213.255.254"):
        assert lab.refuses(job, address, service)
        assert lab.refuses(job, address, service, "udp")
    assert lab.ask(job, fence.host_address, fence.port) == job.address
    assert lab.refuses(job, fence.host_address, fence.port, "udp")


def test_only_jobs_and_the_host_reach_the_address_of_the_api(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    lab.listen_on_host(fence.host_address, fence.port)

    assert lab.refuses("lan", fence.host_address, fence.port)
    assert lab.ask("host", fence.host_address, fence.port) == fence.host_address


def test_a_port_that_the_host_forwards_to_a_container_is_the_hosts(lab: Lab, missing: str) -> None:
    port = lab.listen_on_lan("0.0.0.0")
    lab.on_host(
        *("iptables", "-t", "nat", "-A", "PREROUTING", "-d", HOST, "-p", "tcp", "--dport", "8080"),
        *("-j", "DNAT", "--to-destination", f"{LAN}:{port}"),
    )
    fence = make_fence()
    lab.set_up(fence, without=missing)

    assert lab.refuses(lab.job(fence), HOST, 8080)


def test_a_resolver_on_the_host_answers(lab: Lab, missing: str) -> None:
    fence = make_fence(resolvers=(HOST,))
    lab.set_up(fence, without=missing)
    job = lab.job(fence)
    lab.listen_on_host(HOST, 53)
    other = lab.listen_on_host(HOST)

    for kind in ("udp", "tcp"):
        assert lab.ask(job, HOST, 53, kind) == job.address
        assert lab.refuses(job, HOST, other, kind)


@pytest.mark.parametrize(
    ("first", "addresses"),
    [
        (
            "search lan\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n",
            ("fe80::1",),
        ),
        ("nameserver\n nameserver 192.0.2.1\nnameserver 192.0.2.1\n", ("192.0.2.1",)),
        ("nameserver 127.0.0.53\nnameserver 0.0.0.0\nnameserver ::1\n", ("192.0.2.53",)),
        ("", ("192.0.2.53",)),
    ],
)
def test_jobs_may_ask_the_resolvers_that_they_are_told_of(
    tmp_path: Path, first: str, addresses: tuple[str, ...]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(first)
    two.write_text("nameserver 192.0.2.53\n")

    found = resolving.find(("/absent", str(one), str(two)))

    assert found.addresses == addresses
    assert all(f"nameserver {address}" in found.text for address in addresses)


def test_without_a_resolver_beyond_loopback_none_may_be_asked(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("nameserver 127.0.0.1\n")

    found = resolving.find((str(tmp_path / "one"), "/absent"))

    assert found == resolving.Resolvers("nameserver 127.0.0.1\n", ())


def test_a_sleeping_run_holds_nothing_that_only_the_server_needs() -> None:
    code = f"import sys; sys.path.insert(0, {interpreter.PACKAGE_ROOT!r})"
    code = f"{code}; import neuro.engines.sandbox.zygote; print(*sys.modules)"
    command = [*interpreter.python(), "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert "neuro.engines.sandbox.supervisor" in loaded
    large = {"asyncio", "hashlib", "ipaddress", "logging", "pathlib", "shutil", "traceback"}
    ours = {"neuro.engines.sandbox.firewall", "neuro.engines.sandbox.userland_search"}
    assert not (large | ours) & set(loaded)


# IPv6 and false addresses.


def test_nothing_passes_by_ipv6(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.on_host("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
    lab.on_host("ip", "-6", "address", "add", "fd00::1/64", "dev", "up0", "nodad")
    one, other = lab.job(fence, 1), lab.job(fence, 2)
    # All that a host with IPv6 could do for its jobs, and more than ours does.
    for job, address in ((one, "fd01::2"), (other, "fd01::3")):
        interface = lab.interface(fence, job)
        add = ("ip", "-6", "address", "add")
        lab.on_host(*add, "fe80::1/64", "dev", interface, "nodad")
        lab.on_host("ip", "-6", "route", "add", address, "dev", interface)
        lab.in_job(job, *add, f"{address}/128", "dev", "eth0", "nodad")
        lab.in_job(job, "ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
    on_host, inside = lab.listen_on_host("::"), lab.listen_in(other, "::")
    ways = (("fe80::1", on_host, "eth0"), ("fd00::1", on_host, ""), ("fd01::3", inside, ""))
    for address, port, interface in ways:
        # Its link-local address is one to speak from, too, once the kernel has tried it out.
        assert lab.ask(one, address, port, interface=interface).startswith(("fd01::2", "fe80::"))

    lab.set_up(fence, without=missing)

    for address, port, interface in ways:
        assert lab.refuses(one, address, port, interface=interface)


def test_a_false_address_gets_nowhere(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    mine, theirs = lab.job(fence, 1), lab.job(fence, 2)
    lab.listen_on_host(fence.host_address, fence.port)
    outside = lab.listen_on_lan("0.0.0.0")
    assert lab.ask(mine, LAN, outside) == HOST

    for address in (theirs.address, "198.51.100.7"):
        lab.in_job(mine, "ip", "address", "add", f"{address}/32", "dev", "eth0")
        lab.in_job(mine, "ip", "route", "replace", "default", "via", "169.254.1.1", "src", address)
        before = seen(lab)
        assert lab.refuses(mine, LAN, outside, "udp")
        assert lab.refuses(mine, fence.host_address, fence.port)
        assert seen(lab) == before


def seen(lab: Lab) -> int:
    """How many packets the machine beside the host has got, but ARP's and IPv6's."""
    return int(lab.on_lan("sh", "-c", "awk '/^Ip: [0-9]/ {print $4}' /proc/net/snmp"))


def test_where_the_host_has_no_rules_the_routing_refuses(lab: Lab) -> None:
    addresses = (METADATA, "169.254.169.253", "192.168.7.7")
    for address in addresses:
        lab.on_lan("ip", "address", "add", f"{address}/32", "dev", "lan0")
        lab.on_host("ip", "route", "add", f"{address}/32", "via", LAN)
    port, resolver = lab.listen_on_lan("0.0.0.0"), lab.listen_on_lan("169.254.169.253", 53)

    lab.refuse_on_host(firewall.refused(private=False), ("169.254.169.253",))

    for address in addresses:
        assert lab.refuses("host", address, port)
    assert lab.ask("host", LAN, port) == HOST
    for kind in ("tcp", "udp"):
        assert lab.ask("host", "169.254.169.253", resolver, kind) == HOST
    assert lab.ask("host", HOST, lab.listen_on_host("0.0.0.0")) == HOST


# Setting up and taking away.


def rules(lab: Lab) -> str:
    """All rules of the host, without counters."""
    tables = ("filter", "nat", "mangle")
    commands = [
        "nft -t list ruleset",
        *(f"iptables -t {each} -S" for each in tables),
        "ip6tables -S",
    ]
    return lab.on_host("sh", "-c", "; ".join(commands))


def test_setting_up_twice_changes_nothing(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    before = sorted(rules(lab).splitlines())

    lab.set_up(fence, without=missing)

    assert sorted(rules(lab).splitlines()) == before


def test_the_last_installation_leaves_the_host_as_it_was(lab: Lab, missing: str) -> None:
    before = rules(lab)
    first, second = make_fence(), make_fence(OTHER)
    for fence in (first, second):
        lab.set_up(fence, without=missing)
    job = lab.job(second)
    port = lab.listen_on_lan("0.0.0.0")

    lab.tear_down(first, without=missing)

    assert lab.forwards()
    assert lab.ask(job, LAN, port) == HOST
    assert first.installation not in rules(lab)

    lab.tear_down(second, without=missing)

    assert not lab.forwards()
    assert chains(rules(lab)) == chains(before)


def test_an_address_goes_with_its_last_installation(lab: Lab, missing: str) -> None:
    first = make_fence()
    second = make_fence(f"{int(first.installation, 16) + 0xFD:08x}")
    assert second.host_address == first.host_address
    for fence in (first, second):
        lab.set_up(fence, without=missing)

    lab.tear_down(first, without=missing)
    assert second.host_address in lab.on_host("ip", "address")

    lab.tear_down(second, without=missing)
    assert second.host_address not in lab.on_host("ip", "address")


def chains(text: str) -> list[str]:
    """What iptables and nft list, without the empty tables that iptables makes by itself."""
    lines = [line for line in text.splitlines() if line.startswith("-") or "neuro" in line]
    return sorted({line for line in lines if not line.startswith("-P")})


def test_what_was_set_up_by_a_server_that_was_killed_is_put_back_by_the_next(lab: Lab) -> None:
    lab.set_up(make_fence())  # and no end

    lab.set_up(make_fence(port=7001))
    lab.tear_down(make_fence())

    assert not lab.forwards()
    assert "neuro" not in rules(lab)


def test_forwarding_stays_on_where_it_was_on(lab: Lab, missing: str) -> None:
    lab.on_host("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    lab.set_up(make_fence(), without=missing)

    lab.tear_down(make_fence(), without=missing)

    assert lab.forwards()


def test_forwarding_stays_on_for_others_who_came_to_need_it(lab: Lab, missing: str) -> None:
    lab.set_up(make_fence(), without=missing)
    lab.on_host("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "up0", "-j", "MASQUERADE")

    lab.tear_down(make_fence(), without=missing)

    assert lab.forwards()


def test_a_host_that_gets_nft_keeps_nothing_of_the_rules_before(lab: Lab) -> None:
    fence = make_fence()
    lab.set_up(fence, without="nft")
    lab.set_up(fence)
    one, other = lab.job(fence, 1), lab.job(fence, 1)

    assert lab.ask(one, other.address, lab.listen_in(other)) == one.address
    lab.tear_down(fence)
    assert not lab.forwards()


def test_the_table_of_an_earlier_version_goes(lab: Lab) -> None:
    lab.on_host("nft", "add", "table", "ip", firewall.table("0a1b2c3d"))

    lab.set_up(make_fence())

    assert "table ip neuro_" not in rules(lab)


def test_a_group_is_joined_at_once(lab: Lab) -> None:
    fence = make_fence()
    lab.set_up(fence)
    one, other = lab.job(fence), lab.job(fence)
    port = lab.listen_in(other)
    assert lab.refuses(one, other.address, port)

    for job in (one, other):
        lab.join_group(job, 7)

    assert lab.ask(one, other.address, port) == one.address


def test_a_pair_has_one_queue_whatever_the_processors(lab: Lab) -> None:
    fence = make_fence()
    lab.set_up(fence)
    job = lab.job(fence)

    inside = lab.in_job(job, "ip", "-details", "-json", "link", "show", "eth0")
    outside = lab.on_host("ip", "-details", "-json", "link", "show", lab.interface(fence, job))

    for side in (inside, outside):
        (link,) = json.loads(side)
        assert (link["num_tx_queues"], link["num_rx_queues"]) == (1, 1)


MANY = """
import socket, sys
held = []
try:
    for _ in range(int(sys.argv[3])):
        held.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 3))
except OSError:
    pass
print(len(held))
"""


def test_a_job_does_not_fill_the_hosts_table_of_connections(lab: Lab, missing: str) -> None:
    fence = make_fence(flows=20)
    lab.set_up(fence, without=missing)
    job, other = lab.job(fence, 1), lab.job(fence, 2)
    port = lab.listen_on_lan("0.0.0.0")

    made = lab.in_job(job, sys.executable, "-ISc", MANY, LAN, str(port), "40")

    assert int(made) == 20
    assert lab.ask(other, LAN, port) == HOST


def test_an_address_of_no_job_leads_nowhere(lab: Lab, missing: str) -> None:
    fence = make_fence()
    lab.set_up(fence, without=missing)
    job = lab.job(fence, 1)
    nobody = "10.213.254.1"  # the machine beside the host would answer
    lab.on_lan("ip", "address", "add", f"{nobody}/32", "dev", "lo")
    port = lab.listen_on_lan(nobody)
    assert not lab.refuses("host", nobody, port)

    assert lab.refuses(job, nobody, port)
