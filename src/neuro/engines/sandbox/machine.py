"""What this machine can do for jobs: looked at once, when the engine opens. All of it blocks."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from neuro.engines.base import EngineFault, Node
from neuro.engines.sandbox import (
    cgroups,
    firewall,
    hierarchies,
    identities,
    interpreter,
    layout,
    leftovers,
    nat,
    probing,
    resolving,
    seccomp,
    trials,
    userland_search,
)
from neuro.engines.sandbox import network as network_of_runs
from neuro.engines.sandbox.firewall import Fence
from neuro.engines.sandbox.launch import OWN, PASTA, SHARED, Network, Plan
from neuro.engines.sandbox.pasta import forwarding
from neuro.engines.sandbox.settings import SandboxSettings

_TIMEOUT = 10
_CONTROL_LEAST = 512 << 20  # bytes: one control run may have as much
TUN = "/dev/net/tun"

log = logging.getLogger("neuro.engine")


def installation(folder: str) -> dict[str, str]:
    """This installation's id, its jobs' subnet ("" if none is chosen yet), and its place.

    A folder that was copied is another installation: with the id it would have the control groups,
    the network and the processes of the original. So the copy gets an id of its own, and forgets
    the processes of the runs that it has records of: they are the original's.
    """
    path = f"{folder}/installation"
    place = _place(folder)
    record = layout.read_record(path) or {}
    if record.get("place", place) != place or ("place" not in record and leftovers.is_copy(folder)):
        log.warning("%s is a copy: the runs that go on belong to the original", folder)
        leftovers.forget_processes(folder)
        record = {}
    # A person may remove the subnet, for another to be chosen.
    whole = {"id": secrets.token_hex(4), "subnet": "", **record, "place": place}
    if whole != record:
        layout.write_record(path, whole)
    return whole


def _place(folder: str) -> str:
    """What a copy of the folder does not have in common with it; it stays while runs go on."""
    status = os.stat(folder)
    return f"{status.st_dev:x}:{status.st_ino:x}"


def examine(
    folder: str, settings: SandboxSettings, storage: str | None = None
) -> tuple[Plan, list[str]]:
    """How jobs will run here, and what a person should know about it. Raises EngineFault.

    ``storage`` is the folder that volumes are in.
    """
    notices: list[str] = []
    identity = installation(folder)
    for name in ("jobs", "berths", "land", "stage"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        os.chmod(f"{folder}/{name}", 0o755)  # noqa: S103 - the folder around them is closed
    groups = hierarchies.find(identity["id"], settings.cgroup_root)
    if groups.version == 0:
        notices.append(
            "no control group is writable here: memory limits are enforced by watching, CPU limits"
            " by choosing cores. Run the server as root, or in a systemd unit with Delegate=yes"
        )
    try:
        most = settings.control_memory or max(_CONTROL_LEAST, _memory() // 4)
        hierarchies.bound_control(groups, most)
    except OSError as error:
        notices.append(
            "the memory of main jobs of bakes together has no limit, because their control group"
            f" cannot be given one: {error.strerror}"
        )
    plan = fence(unfenced(folder, settings, groups), settings, notices, storage)
    return replace(plan, network=_network(folder, identity, settings, notices)), notices


def unfenced(folder: str, settings: SandboxSettings, groups: cgroups.Groups) -> Plan:
    """The plan as far as nothing has to be tried for it: with the machine's own network."""
    filters = partial(seccomp.program, io_uring=settings.io_uring, perf=settings.perf)
    return Plan(
        folder=folder,
        userland=userland_search.find(folder, settings.visible, settings.masked),
        groups=groups,
        network=Network(SHARED),
        retention=settings.retention,
        default_argv=("bash",) if shutil.which("bash") else ("sh",),
        processes=hierarchies.process_limit(settings.processes),
        device_folder=settings.device_folder,
        plain=os.geteuid() != 0,
        shared_ids=False,
        system_calls=filters().hex(),
        nesting=filters(nesting=True).hex(),
        pretending=seccomp.program(pretending=True).hex(),
    )


class NoFence(EngineFault):
    """No sandbox can be made here; ``reason`` is what the strongest one failed with."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


def fence(
    plan: Plan, settings: SandboxSettings, notices: list[str], storage: str | None = None
) -> Plan:
    """The best sandbox that can be made here, found by making it. Raises NoFence.

    One that cannot mount what is in ``storage`` is none.
    """
    # The trial of a sandbox mounts the engine's own folder: that tells of its file system.
    elsewhere = storage is not None and os.stat(storage).st_dev != os.stat(plan.folder).st_dev
    unmapped: str | None = None
    alone = replace(plan, groups=cgroups.Groups())  # a group costs time, and is not in question
    refused: dict[tuple[bool, bool, bool], str] = {}
    for shared, mapped, writable in _WAYS:
        if (shared and not settings.shared_ids) or ((shared or mapped) and plan.plain):
            continue
        if unmapped is not None and not shared:
            continue
        if shared:
            userland_search.give_away(plan.folder, identities.STORAGE)
        land = replace(plan.userland, mapped=mapped, writable=writable)
        reason = probing.refusal(replace(alone, userland=land, shared_ids=shared))
        if reason is None and storage is not None and elsewhere and not (shared or plan.plain):
            unmapped = trials.refusal("mapped-mount", storage)
            if unmapped is not None:
                reason = f"the storage's file system cannot map users: {unmapped}"
                refused[False, True, True] = reason
        if reason is None:
            notices += _lacks(plan, mapped, writable, shared, refused)
            return replace(plan, userland=land, shared_ids=shared)
        refused[shared, mapped, writable] = reason
    first = next(iter(refused.values()))
    if unmapped is not None and not settings.shared_ids:
        raise NoFence(
            f"jobs cannot mount folders of the storage, because the file system of {storage} does"
            f" not let files belong to another user in a mount: {unmapped}. Put the storage on"
            " ext4, xfs, btrfs or tmpfs (`folder` below [storage] in server.toml). Or"
            " `shared_ids = true` below [sandbox] runs all jobs as one unprivileged user of the"
            " machine, a weaker fence between jobs. `neuro doctor` says what is missing",
            first,
        )
    if plan.plain:
        raise NoFence(
            f"this machine does not let a plain user make a sandbox: {first}. It needs user"
            " namespaces for unprivileged users (sysctl user.max_user_namespaces; on Debian"
            " kernel.unprivileged_userns_clone=1; on Ubuntu an AppArmor profile: see"
            " `neuro doctor`) and Linux 5.12 or newer. Or run the server as root",
            first,
        )
    raise NoFence(
        f"this machine cannot fence jobs in: {first}. It needs user namespaces, Linux 5.19 or newer"
        f" and a file system below {plan.folder} whose files can belong to another user in a mount"
        " (ext4, xfs, btrfs, tmpfs). If only the latter is missing, `shared_ids = true` below"
        " [sandbox] in server.toml runs all jobs as one unprivileged user of the machine, a weaker"
        " fence between jobs. `neuro doctor` says what is missing",
        first,
    )


# (shared_ids, userland mapped, userland writable): the strongest and most comfortable first.
_WAYS = (
    *((False, True, True), (False, False, True), (False, True, False), (False, False, False)),
    *((True, True, True), (True, False, True), (True, True, False), (True, False, False)),
)


def _lacks(
    plan: Plan,
    mapped: bool,
    writable: bool,
    shared: bool,
    refused: dict[tuple[bool, bool, bool], str],
) -> list[str]:
    notices = []
    if shared:
        notices.append(
            "all jobs are one user of this machine (shared_ids), because"
            f" {refused[False, True, True]}: the fence between jobs is weaker"
        )
    if not writable:
        reason = refused[shared, mapped, True]
        notices.append(
            f"jobs cannot write to /usr and /etc, because {plan.folder} lies on a file system that"
            f" cannot hold their layers (use ext4, xfs, btrfs or tmpfs): {reason}"
        )
    elif not mapped and not plan.plain:
        reason = refused[shared, True, True]
        notices.append(
            "jobs cannot change files of /usr and /etc, because these belong to nobody in them:"
            f" {reason}"
        )
    return notices


def _network(
    folder: str, identity: dict[str, str], settings: SandboxSettings, notices: list[str]
) -> Network:
    if settings.network == "shared":
        notices.append(f"jobs share the host's network, as server.toml says: {_SHARED_MEANS}")
        return Network(SHARED)
    if os.geteuid() == 0:
        try:
            return _own_network(folder, identity, settings, notices)
        except nat.NoNetwork as reason:
            raise EngineFault(_refusal(str(reason))) from None
    try:
        return pasta_network(settings)
    except nat.NoNetwork as reason:
        notices.append(f"jobs share the host's network, because {reason}: {_SHARED_MEANS}")
        return Network(SHARED)


_SHARED_MEANS = (
    "each reaches the ports of all others and this machine's own, those on 127.0.0.1 too, and"
    " whoever reaches this machine reaches the ports of jobs"
)


def _refusal(reason: str) -> str:
    return (
        f"Jobs cannot have networks of their own: {reason}.\nWithout them every job reaches the"
        " ports of all others and of this machine. Mend it, or accept that by two lines in"
        " server.toml, in the data folder:\n  [network]\n  shared = true"
    )


def _own_network(
    folder: str, identity: dict[str, str], settings: SandboxSettings, notices: list[str]
) -> Network:
    subnet = identity["subnet"]
    if not subnet:
        subnet = nat.choose_subnet()
        layout.write_record(f"{folder}/installation", {**identity, "subnet": subnet})
    rules = rules_for(identity["id"], subnet, settings)
    mtu, prefix = nat.default_mtu(), network_of_runs.interfaces(identity["id"])
    try:
        notices += nat.set_up(rules)
        prove_veth(subnet, mtu, prefix)
    except nat.NoNetwork:
        if not leftovers.may_go_on(folder):  # else its fence stays around it
            nat.tear_down(identity["id"], subnet)
        raise
    return Network(OWN, subnet, prefix, mtu, host_address=rules.host_address)


def rules_for(installation: str, subnet: str, settings: SandboxSettings) -> Fence:
    """The rules of an installation on this machine."""
    return Fence(
        installation=installation,
        subnet=subnet,
        host_address=network_of_runs.host_address(installation, subnet),
        port=settings.host_port,
        private=settings.private_networks,
        resolvers=resolving.find().addresses,
        flows=_flows(),
    )


def _flows() -> int:
    """How many connections of one person's jobs this machine follows: an eighth of all it can."""
    try:
        most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text("ascii"))
    except (OSError, ValueError):  # nobody has had it followed any yet
        return Fence.flows
    return max(1024, min(Fence.flows, most // 8))


def prove_veth(subnet: str, mtu: int, prefix: str) -> None:
    """Make a network such as a job's, which goes at once. Raises nat.NoNetwork."""
    wrong = _try(_calling(f"enter_new({subnet!r}, {mtu}, {prefix!r})"))
    if wrong is not None:
        last = wrong.splitlines()[-1]
        raise nat.NoNetwork(f"this machine does not let the server make a veth pair ({last})")


def pasta_network(settings: SandboxSettings) -> Network:
    """Networks for a plain user's jobs, found by making one. Raises nat.NoNetwork."""
    tool = shutil.which("pasta")
    if tool is None:
        raise nat.NoNetwork("pasta is not installed (apt-get install passt)")
    if not os.access(TUN, os.R_OK | os.W_OK):  # pasta would wait for ever
        raise nat.NoNetwork(f"this user may not open {TUN}, which pasta needs (chmod 666 {TUN})")
    refused = firewall.refused(private=settings.private_networks)
    resolvers = resolving.find().addresses
    wrong = _try(
        [
            *(tool, "--config-net", "--quiet", *forwarding(settings.host_port), "--"),
            *_calling(f"refuse({refused!r}, {resolvers!r})"),
        ]
    )
    if wrong is not None:
        raise nat.NoNetwork(f"pasta fails ({wrong.splitlines()[-1]})")
    return Network(
        PASTA,
        tool=tool,
        host_port=settings.host_port,
        refused=refused,
        resolvers=resolvers,
    )


def _calling(call: str) -> list[str]:
    """A command that calls a function of ``network``."""
    found = f"import sys; sys.path.insert(0, {interpreter.PACKAGE_ROOT!r});"
    text = f"{found}from neuro.engines.sandbox import network;network.{call}"
    return [*interpreter.python(), "-c", text]


def _try(command: list[str]) -> str | None:
    """What went wrong, or None."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def node(name: str, device_folder: str) -> Node:
    """All cores, memory and GPUs that this process may give away."""
    return Node(
        name=name,
        cpu=float(len(os.sched_getaffinity(0))),
        memory=_memory(),
        gpus=tuple(map(str, gpus(device_folder))),
    )


def gpus(device_folder: str) -> list[int]:
    """The indexes of the NVIDIA GPUs that have a device file."""
    try:
        names = os.listdir(device_folder)
    except OSError:
        return []
    return sorted(int(found[1]) for name in names if (found := re.fullmatch(r"nvidia(\d+)", name)))


def gpu_model() -> str | None:
    """What the NVIDIA driver calls the first GPU; None without a driver."""
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", path.read_text("utf-8", "replace"), re.MULTILINE)
        if found:
            return found[1].strip()
    return None


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(path).read_text("ascii"))
        except (OSError, ValueError):
            continue
        total = min(total, limit)
    return total
